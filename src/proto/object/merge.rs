//! JSON merge patches (RFC 7396) of objects as they are kept, without a tree: the members of both are in order.

use super::builder::{Builder, Members};
use super::read::{Member, Object, View, json_size, members, view};

/// Writes what the patch makes of the members of an object.
pub fn merge(target: &[u8], patch: &[u8], out: &mut Builder) {
    let mut written = out.members();
    let mut old = members(target).peekable();
    for new in members(patch) {
        while let Some(kept) = old.next_if(|member| member.name < new.name) {
            copy(&kept, &mut written, out);
        }
        let there = old.next_if(|member| member.name == new.name);
        match view(new.value) {
            View::Null => {}
            View::Object(Object(patch)) => {
                let there = there.and_then(|member| view(member.value).as_object());
                let member = out.open_member(&mut written, new.name);
                let object = out.open_object();
                merge(there.unwrap_or(Object::EMPTY).0, patch, out);
                out.close(object);
                out.close_member(member);
            }
            _ => copy(&new, &mut written, out),
        }
    }
    for kept in old {
        copy(&kept, &mut written, out);
    }
}

/// Writes those members of an object that are to be kept.
pub fn copy_members(object: &[u8], keep: impl Fn(&str) -> bool, out: &mut Builder) {
    let mut written = out.members();
    for member in members(object).filter(|member| keep(member.name)) {
        copy(&member, &mut written, out);
    }
}

fn copy(member: &Member<'_>, written: &mut Members, out: &mut Builder) {
    let open = out.open_member(written, member.name);
    out.copy(member.value, json_size(member.value));
    out.close_member(open);
}
