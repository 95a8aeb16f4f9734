//! The page of scopes is made of the options of the RPCs.

use std::fmt::Write;

use offboard::access::Scope;
use prost_reflect::{DescriptorPool, MethodDescriptor, Value};

use super::check;

/// The scopes that an RPC declares: that of every call, and those of some.
fn scopes(pool: &DescriptorPool, method: &MethodDescriptor) -> (String, Vec<String>) {
    let extension =
        |name: &str| pool.get_extension_by_name(&format!("offboard.v1.{name}")).unwrap();
    let options = method.options();
    let required = options.get_extension(&extension("required_scope"));
    let further = options.get_extension(&extension("further_scopes"));
    let further = further.as_list().unwrap().iter().filter_map(Value::as_str);
    (required.as_str().unwrap().to_owned(), further.map(str::to_owned).collect())
}

/// The method and the path of the first REST route of an RPC.
fn route(pool: &DescriptorPool, method: &MethodDescriptor) -> String {
    let rule = method
        .options()
        .get_extension(&pool.get_extension_by_name("google.api.http").unwrap())
        .into_owned();
    let rule = rule.as_message().unwrap();
    let verb = ["get", "post", "put", "patch", "delete"]
        .into_iter()
        .find(|verb| rule.has_field_by_name(verb));
    let verb = verb.unwrap_or_else(|| panic!("{} has no route", method.name()));
    let path = rule.get_field_by_name(verb).unwrap();
    format!("{} {}", verb.to_uppercase(), path.as_str().unwrap())
}

#[test]
fn the_page_of_scopes_is_what_each_method_asks_for() {
    let pool = DescriptorPool::decode(offboard::proto::DESCRIPTOR_SET).unwrap();
    let mut page = String::from(
        "# Scopes\n\nWhat a [key](keys.md) may do. A key has one scope or more, each named by what is done, and a call needs one of them; some calls need another one as well, for a part of what they ask \
         for or for what the response shows. `admin` has all of them. A test makes every call with a key of every single scope: a key of one scope can do nothing else. The page is made of the \
         options of the RPCs. What a scope lets its holder infer is in [`requests.md`](requests.md#what-a-key-may-do).\n\n| scope | allows to |\n| --- | --- |\n",
    );
    for scope in Scope::ALL {
        writeln!(page, "| `{scope}` | {} |", scope.allows()).unwrap();
    }
    page.push_str(
        "\n## By RPC\n\n| RPC | REST | scope | some calls also need |\n| --- | --- | --- | --- |\n",
    );
    let services = pool.services().filter(|service| service.package_name() == "offboard.v1");
    for method in services.flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let (required, further) = scopes(&pool, &method);
        let further: Vec<_> = further.iter().map(|scope| format!("`{scope}`")).collect();
        let name = format!("{}/{}", method.parent_service().name(), method.name());
        writeln!(
            page,
            "| `{name}` | `{}` | `{required}` | {} |",
            route(&pool, &method),
            further.join(", ")
        )
        .unwrap();
    }
    check("docs/scopes.md", &page);
}
