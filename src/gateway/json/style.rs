//! How a service spells its JSON.

/// The spelling of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// Members as in the proto file, enum values in lower snake case without their prefix.
    SnakeCase,
    /// Members in lowerCamelCase, enum values by their `json_value` or as they stand without their prefix.
    CamelCase,
}

impl Style {
    /// The style with this number in `offboard.v1.JsonStyle`.
    pub fn from_number(number: i32) -> Option<Style> {
        match number {
            1 => Some(Style::SnakeCase),
            2 => Some(Style::CamelCase),
            _ => None,
        }
    }

    /// Spells a path of proto names.
    pub(super) fn spell_path(self, path: &str) -> String {
        match self {
            Style::SnakeCase => path.to_owned(),
            Style::CamelCase => {
                let mut words = path.split('_');
                let mut spelled = words.next().unwrap_or_default().to_owned();
                for word in words {
                    let mut characters = word.chars();
                    spelled.extend(characters.next().map(|first| first.to_ascii_uppercase()));
                    spelled.push_str(characters.as_str());
                }
                spelled
            }
        }
    }
}
