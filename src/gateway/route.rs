//! Finds the route of a request: a tree of path segments in which a literal takes precedence over a variable.

use std::borrow::Cow;
use std::collections::HashMap;

use http::Method;
use uuid::Uuid;

use super::percent::{self, UriPart};
use super::template::{Segment, Template};

/// Routes, each with its target.
#[derive(Debug)]
pub struct Router<T> {
    root: Node,
    routes: Vec<Route<T>>,
}

#[derive(Debug)]
struct Route<T> {
    template: Template,
    /// True if the last segment of its paths can have a colon in it that begins no verb.
    takes_colon: bool,
    target: T,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, Node>,
    one: Option<Box<Node>>,
    rest: Option<Box<Node>>,
    ends: Vec<End>,
}

/// A route that ends at a node.
#[derive(Debug)]
struct End {
    verb: Option<String>,
    method: Method,
    /// The segments whose text is a UUID.
    uuids: Vec<usize>,
    route: usize,
}

impl Node {
    fn methods(&self) -> Vec<Method> {
        let within = self
            .literals
            .values()
            .chain(self.one.as_deref())
            .chain(self.rest.as_deref())
            .flat_map(Node::methods);
        self.ends.iter().map(|end| end.method.clone()).chain(within).collect()
    }
}

impl End {
    fn takes(&self, segments: &[&str]) -> bool {
        self.uuids
            .iter()
            .all(|index| segments.get(*index).is_some_and(|text| Uuid::try_parse(text).is_ok()))
    }
}

/// The result of a router.
#[derive(Debug)]
pub enum Found<'r, 'p, T> {
    /// A route, and the text of each of its variables, still percent-encoded, in the order of the template.
    Route {
        /// The target of the route.
        target: &'r T,
        /// The text of its variables.
        variables: Vec<Cow<'p, str>>,
    },
    /// The path has routes, but none for the method. Those of the most literal one, sorted: what a path of variables would take as well is not
    /// advertised there.
    OtherMethods(Vec<Method>),
    /// The path has no route.
    Nothing,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Router { root: Node::default(), routes: Vec::new() }
    }
}

impl<T> Router<T> {
    /// Adds a route. Fails with the target that has the same method and matches the same paths already.
    ///
    /// The segments at `uuids` contain UUIDs. A path with another text there still has this route, so that its caller learns the fault of
    /// the id; but not where a more literal route has the path: that text is a name, and not an id. Where the last segment `takes_colon`,
    /// `a:b` is text there unless it is a verb; elsewhere it is a verb in any case.
    pub fn add(
        &mut self,
        method: Method,
        template: Template,
        (uuids, takes_colon): (Vec<usize>, bool),
        target: T,
    ) -> Result<(), &T> {
        let mut node = &mut self.root;
        for segment in &template.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::One => node.one.get_or_insert_default(),
                Segment::Rest => node.rest.get_or_insert_default(),
            };
        }
        if let Some(taken) =
            node.ends.iter().find(|end| end.verb == template.verb && end.method == method)
        {
            return Err(&self.routes[taken.route].target);
        }
        node.ends.push(End {
            verb: template.verb.clone(),
            method,
            uuids,
            route: self.routes.len(),
        });
        self.routes.push(Route { template, takes_colon, target });
        Ok(())
    }

    /// The targets of the routes, in the order in which they were added.
    pub fn targets(&self) -> impl Iterator<Item = &T> {
        self.routes.iter().map(|route| &route.target)
    }

    /// The verbs of all routes.
    pub fn verbs(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().filter_map(|route| route.template.verb.as_deref())
    }

    /// The methods of all routes, sorted: what `OPTIONS *` asks for (RFC 9110, section 9.3.7).
    pub fn methods(&self) -> Vec<Method> {
        all_of(self.root.methods())
    }

    /// Finds the route of a path, still percent-encoded and without its query. `HEAD` has the routes of `GET`.
    pub fn find<'p>(&self, method: &Method, path: &'p str) -> Found<'_, 'p, T> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let Some(path) = path.strip_prefix('/') else { return Found::Nothing };
        let mut segments: Vec<&str> = path.split('/').collect();
        let mut search = Search { method, verb: None, others: Vec::new() };

        // `a:b` is a verb where some route has it, be it for another method, and else text like any other.
        let last = segments.len() - 1;
        if let Some((text, verb)) = segments[last].rsplit_once(':') {
            let whole = std::mem::replace(&mut segments[last], text);
            search.verb = Some(verb);
            if let Some(route) = search.descend(&self.root, &segments, 0) {
                return self.found(route, &segments);
            }
            if !search.others.is_empty() {
                return search.nothing();
            }
            segments[last] = whole;
            search.verb = None;
            // As text it matches no other method: a caller who writes it means a verb, and there is none.
            return match search.descend(&self.root, &segments, 0) {
                Some(route) if self.routes[route].takes_colon => self.found(route, &segments),
                _ => Found::Nothing,
            };
        }
        match search.descend(&self.root, &segments, 0) {
            Some(route) => self.found(route, &segments),
            None => search.nothing(),
        }
    }

    fn found<'p>(&self, route: usize, segments: &[&'p str]) -> Found<'_, 'p, T> {
        let Route { template, target, .. } = &self.routes[route];
        let spans_rest = template.segments.last() == Some(&Segment::Rest);
        let variables = template.variables.iter().map(|variable| {
            let end = if spans_rest && variable.end == template.segments.len() {
                segments.len()
            } else {
                variable.end
            };
            match &segments[variable.start..end] {
                [only] => Cow::Borrowed(*only),
                many => Cow::Owned(many.join("/")),
            }
        });
        Found::Route { target, variables: variables.collect() }
    }
}

struct Search<'s> {
    method: &'s Method,
    verb: Option<&'s str>,
    others: Vec<Method>,
}

impl Search<'_> {
    /// Finds the route of the path whose first `depth` segments led to the node.
    fn descend(&mut self, node: &Node, segments: &[&str], depth: usize) -> Option<usize> {
        let Some(first) = segments.get(depth) else {
            return self
                .end(node, segments)
                .or_else(|| node.rest.as_deref().and_then(|rest| self.end(rest, segments)));
        };
        let literal = percent::decode(first, UriPart::Segment)
            .ok()
            .and_then(|text| node.literals.get(text.as_ref()));
        if let Some(route) = literal.and_then(|child| self.descend(child, segments, depth + 1)) {
            return Some(route);
        }
        if !first.is_empty()
            && let Some(route) =
                node.one.as_deref().and_then(|child| self.descend(child, segments, depth + 1))
        {
            return Some(route);
        }
        node.rest.as_deref().and_then(|rest| self.end(rest, segments))
    }

    fn end(&mut self, node: &Node, segments: &[&str]) -> Option<usize> {
        let mut ends = node.ends.iter().filter(|end| end.verb.as_deref() == self.verb);
        let found = ends.clone().find(|end| end.method == *self.method);
        let found =
            found.filter(|end| self.others.is_empty() || end.takes(segments)).map(|end| end.route);
        if found.is_none() && self.others.is_empty() {
            self.others.extend(ends.by_ref().map(|end| end.method.clone()));
        }
        found
    }

    fn nothing<'r, 'p, T>(self) -> Found<'r, 'p, T> {
        if self.others.is_empty() {
            Found::Nothing
        } else {
            Found::OtherMethods(all_of(self.others))
        }
    }
}

/// These methods and those that come with them, sorted.
fn all_of(mut methods: Vec<Method>) -> Vec<Method> {
    methods.push(Method::OPTIONS);
    if methods.contains(&Method::GET) {
        methods.push(Method::HEAD);
    }
    methods.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    methods.dedup();
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &[(&str, &str)]) -> Router<String> {
        let mut router = Router::default();
        for (method, path) in routes {
            let method: Method = method.parse().unwrap();
            let template = Template::parse(path).unwrap();
            let uuids = template
                .variables
                .iter()
                .filter(|variable| variable.field == "uuid")
                .map(|variable| variable.start);
            let takes_colon = !path.ends_with("{word}");
            router
                .add(method, template.clone(), (uuids.collect(), takes_colon), (*path).to_owned())
                .unwrap();
        }
        router
    }

    fn find(router: &Router<String>, method: Method, path: &str) -> String {
        match router.find(&method, path) {
            Found::Route { target, variables } => format!("{target} {variables:?}"),
            Found::OtherMethods(methods) => format!("{methods:?}"),
            Found::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn a_literal_goes_before_a_variable() {
        let router = router(&[
            ("GET", "/t/{id}"),
            ("GET", "/t/_total"),
            ("PUT", "/t/{id}/_stop"),
            ("GET", "/t/**"),
        ]);
        assert_eq!(find(&router, Method::GET, "/t/_total"), "/t/_total []");
        assert_eq!(find(&router, Method::GET, "/t/%5Ftotal"), "/t/_total []");
        assert_eq!(find(&router, Method::GET, "/t/x%2Fy"), r#"/t/{id} ["x%2Fy"]"#);
        assert_eq!(find(&router, Method::GET, "/t/a/b/c"), "/t/** []");
        assert_eq!(find(&router, Method::PUT, "/t/a/_stop"), r#"/t/{id}/_stop ["a"]"#);
    }

    #[test]
    fn a_dead_end_behind_a_literal_is_left_again() {
        let router = router(&[("GET", "/a/b/c"), ("GET", "/{x}/b/{y}")]);
        assert_eq!(find(&router, Method::GET, "/a/b/d"), r#"/{x}/b/{y} ["a", "d"]"#);
    }

    #[test]
    fn a_verb_goes_before_text() {
        let router =
            router(&[("POST", "/e:import"), ("POST", "/e/{id}"), ("POST", "/e/{id}:undo")]);
        assert_eq!(find(&router, Method::POST, "/e:import"), "/e:import []");
        assert_eq!(find(&router, Method::POST, "/e/x:undo"), r#"/e/{id}:undo ["x"]"#);
        assert_eq!(find(&router, Method::POST, "/e/x:other"), r#"/e/{id} ["x:other"]"#);
        assert_eq!(find(&router, Method::POST, "/e/:undo"), r#"/e/{id} [":undo"]"#);
    }

    #[test]
    fn a_verb_is_no_text_for_another_method() {
        let router = router(&[("GET", "/e/{id}"), ("POST", "/e/{id}:undo")]);
        assert_eq!(find(&router, Method::GET, "/e/x:undo"), "[OPTIONS, POST]");
        assert_eq!(find(&router, Method::GET, "/e/x:redo"), r#"/e/{id} ["x:redo"]"#);
        assert_eq!(find(&router, Method::POST, "/e/x"), "[GET, HEAD, OPTIONS]");
    }

    #[test]
    fn a_verb_that_there_is_not_is_no_path() {
        let router = router(&[("GET", "/e/{id}"), ("POST", "/e/{id}:undo"), ("POST", "/e:import")]);
        assert_eq!(find(&router, Method::POST, "/e/x:redo"), "nothing");
        assert_eq!(find(&router, Method::POST, "/e:export"), "nothing");
        assert_eq!(find(&router, Method::DELETE, "/e:import"), "[OPTIONS, POST]");
    }

    #[test]
    fn a_word_has_no_colon_by_any_method() {
        let router =
            router(&[("GET", "/e/{word}"), ("DELETE", "/e/{word}"), ("POST", "/e/{word}:undo")]);
        for method in [Method::GET, Method::DELETE, Method::POST, Method::OPTIONS] {
            assert_eq!(find(&router, method, "/e/x:redo"), "nothing");
        }
        assert_eq!(find(&router, Method::GET, "/e/x:undo"), "[OPTIONS, POST]");
        assert_eq!(find(&router, Method::GET, "/e/x%3Aredo"), r#"/e/{word} ["x%3Aredo"]"#);
    }

    #[test]
    fn variables_may_span_segments() {
        let router = router(&[("GET", "/v1/{name=p/*/q/*}/z"), ("GET", "/f/{path=**}")]);
        assert_eq!(
            find(&router, Method::GET, "/v1/p/1/q/2/z"),
            r#"/v1/{name=p/*/q/*}/z ["p/1/q/2"]"#
        );
        assert_eq!(find(&router, Method::GET, "/f/a/b"), r#"/f/{path=**} ["a/b"]"#);
        assert_eq!(find(&router, Method::GET, "/f"), r#"/f/{path=**} [""]"#);
    }

    #[test]
    fn other_methods_are_reported() {
        let router = router(&[("GET", "/t/{id}"), ("DELETE", "/t/{id}"), ("POST", "/t/x")]);
        assert_eq!(find(&router, Method::PUT, "/t/x"), "[OPTIONS, POST]");
        assert_eq!(find(&router, Method::DELETE, "/t/x"), r#"/t/{id} ["x"]"#);
        assert_eq!(find(&router, Method::PUT, "/t/y"), "[DELETE, GET, HEAD, OPTIONS]");
        assert_eq!(find(&router, Method::HEAD, "/t/y"), r#"/t/{id} ["y"]"#);
        assert_eq!(find(&router, Method::PUT, "/t/"), "nothing");
        assert_eq!(find(&router, Method::PUT, "/t/x/"), "nothing");
        assert_eq!(find(&router, Method::OPTIONS, "*"), "nothing");
    }

    #[test]
    fn a_name_is_no_id() {
        let router = router(&[
            ("GET", "/t/_total"),
            ("PATCH", "/t/{uuid}"),
            ("GET", "/t/{uuid}"),
            ("GET", "/t/{uuid}/f"),
        ]);
        assert_eq!(find(&router, Method::PATCH, "/t/_total"), "[GET, HEAD, OPTIONS]");
        assert_eq!(
            find(&router, Method::PATCH, "/t/x"),
            r#"/t/{uuid} ["x"]"#,
            "no name, so the caller learns what is wrong with it"
        );
        assert_eq!(find(&router, Method::GET, "/t/_total/f"), r#"/t/{uuid}/f ["_total"]"#);
        let id = "019a0000-0000-7000-8000-000000000000";
        assert_eq!(
            find(&router, Method::PATCH, &format!("/t/{id}")),
            format!(r#"/t/{{uuid}} ["{id}"]"#)
        );
    }

    #[test]
    fn a_route_that_is_taken_is_refused() {
        let mut router = router(&[("GET", "/t/{id}")]);
        let taken = router.add(
            Method::GET,
            Template::parse("/t/{other}").unwrap(),
            (Vec::new(), true),
            "other".to_owned(),
        );
        assert_eq!(taken.unwrap_err(), "/t/{id}");
    }
}
