//! Which of several things a caller would rather have (RFC 9110, section 12.4.2).

use http::HeaderMap;
use http::header::HeaderName;

/// The list of a header such as `Accept`, in lower case and without parameters, with the weight of each: from 0, never, to 1000. One that cannot be
/// read counts as none.
pub fn weighted(headers: &HeaderMap, name: HeaderName) -> Vec<(String, u16)> {
    listed(headers, name).map(|(what, weight)| (what, weight.unwrap_or(MOST))).collect()
}

const MOST: u16 = 1000;

/// The same, where a weight that cannot be read is distinguished from none.
pub fn listed(
    headers: &HeaderMap,
    name: HeaderName,
) -> impl Iterator<Item = (String, Option<u16>)> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| value.split(',')).map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let what = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|parameter| {
            parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))
        });
        let weight = weight.map_or(Some(1.0), |weight| weight.parse::<f32>().ok());
        (what, weight.map(|weight| (weight.clamp(0.0, 1.0) * f32::from(MOST)) as u16))
    });
    items.filter(|(what, _)| !what.is_empty())
}

/// The one of these that the list gives the most weight; of several the first of the list. A coding that the list does not name is not
/// chosen.
pub fn preferred<'o, T>(listed: &[(String, u16)], offers: &'o [(&str, T)]) -> Option<&'o T> {
    let mut best: Option<(u16, &T)> = None;
    for (what, weight) in listed.iter().filter(|(_, weight)| *weight > 0) {
        if let Some((_, offer)) = offers.iter().find(|(name, _)| name == what)
            && best.is_none_or(|(most, _)| *weight > most)
        {
            best = Some((*weight, offer));
        }
    }
    best.map(|(_, offer)| offer)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::ACCEPT;

    use super::*;

    fn chosen(accept: &'static str) -> Option<u8> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        preferred(&weighted(&headers, ACCEPT), &[("a/a", 1), ("b/b", 2)]).copied()
    }

    #[test]
    fn the_most_weight_wins_and_then_the_first() {
        assert_eq!(chosen("b/b, a/a"), Some(2));
        assert_eq!(chosen("b/b;q=0.5, A/A ; x=y ; q=0.7"), Some(1));
        assert_eq!(chosen("a/a;q=0, */*"), None);
        assert_eq!(chosen("a/a;q=high"), Some(1));
        assert_eq!(chosen(""), None);
    }
}
