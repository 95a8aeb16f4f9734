//! The annotations of fields and methods: limits of values, statuses of success, scopes. Most serve the published document alone.

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, MessageDescriptor,
    MethodDescriptor, ServiceDescriptor, Value,
};
use serde_json::{Value as Json, json};

/// The annotations of a descriptor set, as far as it has them.
#[derive(Debug)]
pub struct Annotations {
    limits: Option<ExtensionDescriptor>,
    behaviour: Option<ExtensionDescriptor>,
    success_status: Option<ExtensionDescriptor>,
    required_scope: Option<ExtensionDescriptor>,
    further_scopes: Option<ExtensionDescriptor>,
    plain_errors: Option<ExtensionDescriptor>,
    answer_members: Option<ExtensionDescriptor>,
}

/// The number of `REQUIRED` in `google.api.FieldBehavior`.
const REQUIRED: i32 = 2;

impl Annotations {
    /// Finds the annotations.
    pub fn of(pool: &DescriptorPool) -> Annotations {
        let extension = |name| pool.get_extension_by_name(name);
        Annotations {
            limits: extension("offboard.v1.limits"),
            behaviour: extension("google.api.field_behavior"),
            success_status: extension("offboard.v1.success_status"),
            required_scope: extension("offboard.v1.required_scope"),
            further_scopes: extension("offboard.v1.further_scopes"),
            plain_errors: extension("offboard.v1.plain_errors"),
            answer_members: extension("offboard.v1.answer_members"),
        }
    }

    /// Returns whether a field must be given.
    pub fn is_required(&self, field: &FieldDescriptor) -> bool {
        let Some(extension) = &self.behaviour else { return false };
        let options = field.options();
        let behaviours = options.get_extension(extension);
        behaviours.as_list().is_some_and(|list| list.contains(&Value::EnumNumber(REQUIRED)))
    }

    /// The constraints on the value of a field.
    pub fn limits(&self, field: &FieldDescriptor) -> Limits {
        let Some(extension) = &self.limits else { return Limits::default() };
        let options = field.options();
        if !options.has_extension(extension) {
            return Limits::default();
        }
        options.get_extension(extension).as_message().map(Limits::read).unwrap_or_default()
    }

    /// Returns whether the value of a field is a UUID.
    pub fn is_uuid(&self, field: &FieldDescriptor) -> bool {
        self.limits(field).value.iter().any(|(word, value)| *word == "format" && value == "uuid")
    }

    /// Returns whether the value of a field can contain a colon. A pattern names all that may be there.
    pub fn takes_colon(&self, field: &FieldDescriptor) -> bool {
        let rules = self.limits(field).value;
        let forbids = |(word, rule): &(&str, Json)| {
            *word == "pattern" && rule.as_str().is_some_and(|pattern| !pattern.contains(':'))
        };
        !self.is_uuid(field) && !rules.iter().any(forbids)
    }

    /// Returns whether a list must have at least one element.
    pub fn takes_some(&self, field: &FieldDescriptor) -> bool {
        self.limits(field)
            .list
            .iter()
            .any(|(word, value)| *word == "minItems" && value.as_i64() > Some(0))
    }

    /// How many elements a list may have, if that is said.
    pub fn takes_at_most(&self, field: &FieldDescriptor) -> Option<usize> {
        self.limits(field)
            .list
            .iter()
            .find(|(word, _)| *word == "maxItems")
            .and_then(|(_, value)| value.as_u64()?.try_into().ok())
    }

    /// The HTTP statuses of a success, in order.
    pub fn statuses(&self, method: &MethodDescriptor) -> Vec<u16> {
        let options = method.options();
        let declared =
            self.success_status.as_ref().map(|extension| options.get_extension(extension));
        let declared = declared.as_deref().and_then(Value::as_list).unwrap_or_default().iter();
        let mut statuses: Vec<u16> =
            declared.filter_map(|status| status.as_i32()?.try_into().ok()).collect();
        statuses.sort_unstable();
        if statuses.is_empty() { vec![200] } else { statuses }
    }

    /// The beginning of all paths of a service's contract, if that contract has no problem documents.
    pub fn plain_errors(&self, service: &ServiceDescriptor) -> Option<String> {
        let options = service.options();
        let declared =
            self.plain_errors.as_ref().map(|extension| options.get_extension(extension))?;
        declared.as_str().filter(|path| !path.is_empty()).map(str::to_owned)
    }

    /// The only members of the response, by their proto names; none if there may be any.
    pub fn answer_members(&self, method: &MethodDescriptor) -> Vec<String> {
        texts(method, self.answer_members.as_ref())
    }

    /// The scopes that some calls need as well.
    pub fn further_scopes(&self, method: &MethodDescriptor) -> Vec<String> {
        texts(method, self.further_scopes.as_ref())
    }

    /// The scope that a key must have.
    pub fn scope(&self, method: &MethodDescriptor) -> String {
        let options = method.options();
        let declared =
            self.required_scope.as_ref().map(|extension| options.get_extension(extension));
        declared.and_then(|scope| scope.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// The texts of an option of a method.
fn texts(method: &MethodDescriptor, extension: Option<&ExtensionDescriptor>) -> Vec<String> {
    let options = method.options();
    let declared = extension.map(|extension| options.get_extension(extension));
    let declared = declared.as_deref().and_then(Value::as_list).unwrap_or_default().iter();
    declared.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// Returns whether the type is `google.api.HttpBody`.
pub fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.api.HttpBody"
}

/// The constraints on the value of a field, in the words of JSON Schema.
#[derive(Debug, Default)]
pub struct Limits {
    /// Of the value, or of each element of a list.
    pub value: Vec<(&'static str, Json)>,
    /// Of the list.
    pub list: Vec<(&'static str, Json)>,
    /// A value, or an element.
    pub example: Option<Json>,
}

impl Limits {
    fn read(message: &DynamicMessage) -> Limits {
        let number = |name: &str| {
            let value = message
                .has_field_by_name(name)
                .then(|| message.get_field_by_name(name))
                .flatten()?;
            value.as_i64().or_else(|| value.as_i32().map(i64::from))
        };
        let text = |name: &str| {
            let value = message.get_field_by_name(name);
            value
                .and_then(|value| value.as_str().map(str::to_owned))
                .filter(|text| !text.is_empty())
        };
        let numbers = [
            ("minLength", "min_length"),
            ("maxLength", "max_length"),
            ("minimum", "minimum"),
            ("maximum", "maximum"),
        ];
        let texts = [("pattern", "pattern"), ("format", "format")];
        let lists = [("minItems", "min_items"), ("maxItems", "max_items")];
        let mut value: Vec<_> =
            numbers.iter().filter_map(|(word, name)| Some((*word, json!(number(name)?)))).collect();
        value.extend(texts.iter().filter_map(|(word, name)| Some((*word, json!(text(name)?)))));
        Limits {
            value,
            list: lists
                .iter()
                .filter_map(|(word, name)| Some((*word, json!(number(name)?))))
                .collect(),
            example: text("example").and_then(|example| serde_json::from_str(&example).ok()),
        }
    }
}
