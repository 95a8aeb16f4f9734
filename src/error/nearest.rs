//! Finds the names that a misspelt name probably means.

/// The name that was probably meant, if one of them is near enough.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_of(name, names, 1).into_iter().next()
}

/// Those of the names that were probably meant, the nearest first, and at most so many.
pub fn nearest_of<'a>(
    name: &str,
    names: impl IntoIterator<Item = &'a str>,
    at_most: usize,
) -> Vec<&'a str> {
    let wanted = name.to_lowercase();
    let distance =
        |candidate: &str| strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase());
    // The names are short; a word much longer than any of them is not a misspelling of one, and not worth the comparison.
    let candidates = names.into_iter().filter(|candidate| name.len() <= 2 * candidate.len() + 2);
    let near = candidates.map(|candidate| (distance(candidate), candidate));
    let mut near: Vec<_> =
        near.filter(|(far, candidate)| *far <= candidate.len().div_ceil(3)).collect();
    near.sort();
    near.dedup();
    near.truncate(at_most);
    near.into_iter().map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_reported_with_the_nearest_first() {
        assert_eq!(nearest_of("Naem", ["Nome", "Name", "Registry", "Age"], 3), ["Name", "Nome"]);
        assert_eq!(nearest_of("name", ["Name", "NAME", "names"], 2), ["NAME", "Name"]);
        assert_eq!(nearest("frobnicate", ["equals", "in"]), None);
        assert_eq!(nearest(&"x".repeat(10_000), ["equals"]), None);
    }
}
