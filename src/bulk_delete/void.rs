//! Selectors that a caller names and leaves empty, as an unset variable does. By gRPC they cannot be distinguished from those that are left
//! out. Pure.

use crate::bulk_delete::lists::EXCLUDES;
use crate::error::Violations;
use crate::proto::v1;

/// Refuses a delete that would select more for want of these members of its body. Nobody can undo a soft one by this API either.
pub fn check(void: &[String], request: &v1::StartBulkDeleteRequest, faults: &mut Violations) {
    let Some(spec) = request.spec.as_ref().filter(|spec| selects(spec)) else { return };
    let may_exclude_nothing =
        request.allow_missing_excludes.or(spec.allow_missing_excludes).unwrap_or_default();
    for member in void {
        let description = match member.as_str() {
            EXCLUDES if may_exclude_nothing => continue,
            EXCLUDES => {
                "must have a value, or be left out: the delete would exclude nothing for want of it, unless `allow_missing_excludes` is given"
            }
            _ => "must have a value, or be left out: the delete would select more for want of it",
        };
        faults.add(member.as_str(), "required", description);
    }
}

/// Returns whether anything else selects. Where nothing does, the request is refused for that.
fn selects(spec: &v1::BulkDeleteSpec) -> bool {
    let of_objects = |objects: &v1::Selection| {
        objects.filter.is_some() || objects.entity_type.is_some() || !objects.uri_list.is_empty()
    };
    spec.match_all || spec.objects.as_ref().is_some_and(of_objects)
}
