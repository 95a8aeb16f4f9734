//! Which file imports from which: of its `use` lines and its paths, through whatever re-exports them, to the file that has the item.
//!
//! A file and the files of the folder that is named after it are one thing: what lies in `listener/` may use what `listener/mod.rs` has.

use std::collections::{BTreeMap, BTreeSet};

/// A path of the crate, without `crate`.
type Name = Vec<String>;

/// The parsed imports and names of one file.
struct Source {
    /// The module that it is.
    module: Name,
    /// An import: the name that it has here, the path, and whether it is re-exported.
    uses: Vec<(String, Name, bool)>,
    /// The paths and names in its code, behind the `use` lines.
    paths: BTreeSet<Name>,
}

/// The sources of a crate.
pub struct Imports(BTreeMap<Name, (String, Source)>);

impl Imports {
    /// Reads files of these names below `src/`.
    pub fn read(files: impl Iterator<Item = (String, String)>) -> Imports {
        let mut sources = BTreeMap::new();
        for (name, text) in files {
            let mut module: Name =
                name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            if ["mod", "lib", "main"].contains(&module.last().unwrap().as_str()) {
                module.pop();
            }
            sources.insert(module.clone(), (name, Source::read(module, &tokens(&text))));
        }
        Imports(sources)
    }

    /// From each file to those that it imports from.
    pub fn arrows(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        self.0.values().map(|(name, source)| (name.as_str(), self.of(source))).collect()
    }

    fn of(&self, source: &Source) -> BTreeSet<&str> {
        let said = |name: &str| source.paths.iter().any(|path| path[0] == name);
        // A name that is only re-exported is not used here.
        let imported = source
            .uses
            .iter()
            .filter(|(name, _, hands_on)| !hands_on || said(name))
            .map(|(_, path, _)| path.clone());
        let written = source.paths.iter().filter(|path| path.len() > 1).map(|path| {
            let import = source.uses.iter().find(|(name, ..)| *name == path[0]);
            import.map_or_else(
                || path.clone(),
                |(_, known, _)| known.iter().chain(&path[1..]).cloned().collect(),
            )
        });
        let found = imported.chain(written).filter_map(|path| self.find(source, &path, 0));
        found
            .filter(|to| !source.module.starts_with(&to.module))
            .map(|to| self.0[&to.module].0.as_str())
            .collect()
    }

    /// The file that has what this path names where it is written.
    fn find(&self, at: &Source, path: &[String], depth: usize) -> Option<&Source> {
        let ups = path.iter().take_while(|word| *word == "super").count();
        let base = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => at.module[..at.module.len().checked_sub(ups)?].to_vec(),
            first if self.0.contains_key(&[&at.module[..], &[first.to_owned()]].concat()) => {
                at.module.clone()
            }
            _ => return None,
        };
        let rest = path
            .iter()
            .skip_while(|word| ["crate", "self", "super"].contains(&word.as_str()))
            .cloned();
        let full: Name = base.into_iter().chain(rest).collect();
        let length = (0..=full.len()).rev().find(|length| self.0.contains_key(&full[..*length]))?;
        let found = &self.0[&full[..length]].1;
        let handed_on = full.get(length).and_then(|item| {
            found.uses.iter().find(|(name, _, hands_on)| *hands_on && name == item)
        });
        match handed_on {
            Some((_, path, _)) if depth < 8 => {
                self.find(found, &[&path[..], &full[length + 1..]].concat(), depth + 1)
            }
            // The path to a module alone takes nothing out of it.
            _ if length == full.len() && found.module.len() == length && self.is_folder(found) => {
                None
            }
            _ => Some(found),
        }
    }

    fn is_folder(&self, source: &Source) -> bool {
        self.0
            .keys()
            .any(|module| module.len() > source.module.len() && module.starts_with(&source.module))
    }
}

impl Source {
    fn read(module: Name, tokens: &[&str]) -> Source {
        let (mut uses, mut paths) = (Vec::new(), BTreeSet::new());
        let mut at = 0;
        while at < tokens.len() {
            if tokens[at..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"]) {
                at = end_of_item(tokens, at + 7);
            } else if tokens[at] == "use" {
                let hands_on = at > 0 && (tokens[at - 1] == "pub" || tokens[at - 1] == ")");
                at = read_use(tokens, at + 1, &[], &mut |name, path| {
                    uses.push((name, path, hands_on))
                });
            } else if is_word(tokens[at]) {
                let mut path = vec![tokens[at].to_owned()];
                while tokens.get(at + 1) == Some(&"::")
                    && tokens.get(at + 2).is_some_and(|next| is_word(next))
                {
                    path.push(tokens[at + 2].to_owned());
                    at += 2;
                }
                paths.insert(path);
                at += 1;
            } else {
                at += 1;
            }
        }
        Source { module, uses, paths }
    }
}

/// Reads a tree of imports and returns where it ends.
fn read_use(
    tokens: &[&str],
    mut at: usize,
    before: &[String],
    import: &mut impl FnMut(String, Name),
) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens[at] {
            "{" => {
                at += 1;
                while tokens[at] != "}" {
                    at = read_use(tokens, at, &path, import);
                    at += usize::from(tokens[at] == ",");
                }
                return at + 1;
            }
            "as" => {
                import(tokens[at + 1].to_owned(), path);
                return at + 2;
            }
            "self" if !path.is_empty() => at += 1,
            word if is_word(word) => {
                path.push(word.to_owned());
                at += 1;
            }
            "::" => at += 1,
            _ => {
                import(path.last().cloned().unwrap_or_default(), path);
                return at + usize::from(tokens[at] == "*");
            }
        }
    }
}

/// Where an item ends that begins here: behind its `;` or its last brace.
fn end_of_item(tokens: &[&str], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at] {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 && [";", "}"].contains(&tokens[at - 1]) {
            break;
        }
    }
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// The words and signs of a text, without comments and strings. `::` is one.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = |end: &str, from: usize| {
            rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len())
        };
        let raw = rest.strip_prefix('r').map(|raw| raw.chars().take_while(|c| *c == '#').count());
        let length = match first {
            _ if rest.starts_with("//") => after("\n", 2),
            '"' => string(rest),
            'r' if raw.is_some_and(|marks| rest[1 + marks..].starts_with('"')) => {
                let marks = raw.unwrap();
                after(&format!("\"{}", "#".repeat(marks)), 2 + marks)
            }
            // A character; if it is not one, a lifetime.
            '\'' if rest.starts_with("'\\") => after("'", 3),
            '\'' if rest.chars().nth(2) == Some('\'') => {
                2 + rest.chars().nth(1).unwrap().len_utf8()
            }
            _ if is_word(rest) => {
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            _ if rest.starts_with("::") => 2,
            other => other.len_utf8(),
        };
        let token = &rest[..length];
        if is_word(token) && !token.ends_with(['"', '#'])
            || token == "::"
            || token.len() == 1 && !token.trim().is_empty()
        {
            tokens.push(token);
        }
        rest = &rest[length..];
    }
    tokens
}

/// How long the string is that a text begins with.
fn string(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}
