//! The properties that the filters of a list may read. A new property is a row here or in the table of its list; the language stays as it
//! is.

/// The kind of a property, which decides which functions it takes and how its values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyKind {
    /// A text.
    Text,
    /// An entity's id, which callers write as `entities/ID` or as `ID`.
    Uri,
    /// A whole number.
    Number,
    /// A moment, which callers write in milliseconds since 1970 or as RFC 3339.
    Time,
    /// A JSON object. Its members are named after it: `attributes.A.B`.
    Json,
}

/// A property that a filter may read.
#[derive(Debug, PartialEq, Eq)]
pub struct Property {
    /// How callers may spell it. The first spelling is the canonical one.
    pub names: &'static [&'static str],
    /// Its kind.
    pub kind: PropertyKind,
    /// The SQL expression of its value, such as `e.type`; of one type of values: `text` for texts and URIs, `int8`, `timestamptz`, `jsonb`.
    pub sql: &'static str,
    /// True if the value may be NULL. NULL is missing, and satisfies no other function.
    pub nullable: bool,
    /// Every possible value of a text with a fixed set of them; empty if there is no such set.
    pub values: &'static [&'static str],
}

impl Property {
    /// A property that is always there.
    pub const fn new(
        names: &'static [&'static str],
        kind: PropertyKind,
        sql: &'static str,
    ) -> Self {
        Property { names, kind, sql, nullable: false, values: &[] }
    }

    /// A property that may be NULL.
    pub const fn nullable(
        names: &'static [&'static str],
        kind: PropertyKind,
        sql: &'static str,
    ) -> Self {
        Property { names, kind, sql, nullable: true, values: &[] }
    }

    /// A property that is only read in memory.
    pub const fn in_memory(names: &'static [&'static str], kind: PropertyKind) -> Self {
        Property { names, kind, sql: "NULL", nullable: false, values: &[] }
    }

    /// The same of a text that has one of these values, whatever its case in a filter.
    pub const fn one_of(self, values: &'static [&'static str]) -> Self {
        Property { values, ..self }
    }

    /// Its canonical spelling.
    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }
}

/// The properties that the filters of one list know.
#[derive(Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// All of them, in the order in which errors and pages report them.
    pub properties: &'static [Property],
}

impl Vocabulary {
    /// The property that is spelled so, exactly.
    pub fn named(&self, name: &str) -> Option<&'static Property> {
        self.properties.iter().find(|property| property.names.contains(&name))
    }

    /// Every spelling, as `expected` of an error lists it: with a member where one is allowed.
    pub(super) fn spellings(&self) -> Vec<String> {
        let spelling = |property: &Property| match property.kind {
            PropertyKind::Json => format!("`{}.NAME`", property.name()),
            _ => format!("`{}`", property.name()),
        };
        self.properties.iter().map(spelling).collect()
    }
}

/// The properties of entities, over the alias `e` of the table `entity`.
pub static ENTITY: Vocabulary = Vocabulary {
    properties: &[
        Property::new(&["type"], PropertyKind::Text, "e.type"),
        Property::new(&["uri"], PropertyKind::Uri, "e.id"),
        Property::new(&["state"], PropertyKind::Text, "e.state").one_of(&[
            "onboarding",
            "active",
            "offboarding",
        ]),
        Property::nullable(
            &["portfolio", "portfolioId", "portfolio_id"],
            PropertyKind::Text,
            "e.portfolio_id",
        ),
        Property::new(&["createdTime", "created_at"], PropertyKind::Time, "e.created_at"),
        Property::new(&["updatedTime", "updated_at"], PropertyKind::Time, "e.updated_at"),
        Property::new(
            &["crosswalks_count", "crosswalksCount"],
            PropertyKind::Number,
            "jsonb_array_length(e.crosswalks)",
        ),
        Property::new(&["attributes"], PropertyKind::Json, "e.attributes"),
    ],
};
