//! Why a text is not JSON, in our words.

use std::borrow::Cow;

use jiter::{JiterErrorType, JsonErrorType};

/// The reason of an error, to be followed by `at` and its position.
pub(super) fn description(error: &JiterErrorType) -> Cow<'static, str> {
    let JiterErrorType::JsonError(error) = error else { return Cow::Owned(error.to_string()) };
    Cow::Borrowed(match error {
        JsonErrorType::EofWhileParsingList => "it ends within an array",
        JsonErrorType::EofWhileParsingObject => "it ends within an object",
        JsonErrorType::EofWhileParsingString => "it ends within a string",
        JsonErrorType::EofWhileParsingValue => "it ends where a value is expected,",
        JsonErrorType::ExpectedColon => "`:` is expected",
        JsonErrorType::ExpectedListCommaOrEnd => "`,` or `]` is expected",
        JsonErrorType::ExpectedObjectCommaOrEnd => "`,` or `}` is expected",
        JsonErrorType::ExpectedSomeIdent => "`true`, `false` or `null` is expected",
        JsonErrorType::ExpectedSomeValue => "a value is expected",
        JsonErrorType::InvalidEscape => "a string has an escape that JSON does not know,",
        JsonErrorType::LoneLeadingSurrogateInHexEscape
        | JsonErrorType::UnexpectedEndOfHexEscape => {
            "a string has an escape that is half a character, of which the other half is missing,"
        }
        JsonErrorType::InvalidUnicodeCodePoint => "a string is not UTF-8",
        JsonErrorType::ControlCharacterWhileParsingString => {
            "a string has a control character that is not escaped,"
        }
        JsonErrorType::InvalidNumber | JsonErrorType::FloatExpectingInt => {
            "a number is written as JSON has none"
        }
        JsonErrorType::NumberOutOfRange => "a number is too large",
        JsonErrorType::KeyMustBeAString => "the name of a member, in quotes, is expected",
        JsonErrorType::TrailingComma => "another value is expected behind the comma",
        JsonErrorType::TrailingCharacters => "there is something behind the end of the document",
        JsonErrorType::RecursionLimitExceeded => "it is nested too deep",
        JsonErrorType::DuplicateKey(_) => "a name is given twice",
        JsonErrorType::InternalError(_) => "it cannot be read",
    })
}
