//! Every method by a key of every scope: what a key may do is what the proto files declare, and nothing else.

use prost_reflect::{ExtensionDescriptor, MethodDescriptor};

use crate::kit::*;

/// A method, a request for it that names nothing that there is, and the scopes that it declares.
pub struct Method {
    /// Its name, such as `PortfolioService/DetachEntity`.
    pub name: String,
    /// The request.
    pub request: Value,
    /// The scope that every call needs.
    pub required: String,
    /// The scopes that some calls need as well.
    pub further: Vec<String>,
}

fn extension(name: &str) -> ExtensionDescriptor {
    spelling::POOL.get_extension_by_name(&format!("offboard.v1.{name}")).unwrap()
}

fn required(method: &MethodDescriptor) -> String {
    let options = method.options();
    let scope = options.get_extension(&extension("required_scope"));
    scope.as_str().unwrap().to_owned()
}

fn further(method: &MethodDescriptor) -> Vec<String> {
    let options = method.options();
    let scopes = options.get_extension(&extension("further_scopes"));
    let scopes = scopes.as_list().unwrap().iter();
    scopes.map(|scope| scope.as_str().unwrap().to_owned()).collect()
}

/// A request with a value for what its path names, and an empty message where its body is one.
fn request(method: &MethodDescriptor, name: &str) -> Value {
    let mut request = json!({});
    for route in routes::ROUTES.iter().filter(|route| route.rpc == name) {
        let names = route.path.split('{').skip(1).map(|part| part.split('}').next().unwrap());
        for field in names.filter(|name| *name != "tenant") {
            let is_uuid = field.ends_with("_id")
                && !["entity_id", "portfolio_id", "dependent_id"].contains(&field);
            let value = if is_uuid { "0190a1b2-0000-7000-8000-000000000001" } else { "x" };
            request[field] = value.into();
        }
        if let routes::Body::Member(member) = route.body
            && method.input().get_field_by_name(member).is_some_and(|field| !field.is_list())
            && request.as_object().unwrap().keys().all(|field| field != "spec")
        {
            request[member] = json!({});
        }
    }
    request
}

/// Every method of our services.
pub fn methods() -> Vec<Method> {
    let services =
        spelling::POOL.services().filter(|service| service.package_name() == "offboard.v1");
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods
        .map(|method| {
            let name = format!("{}/{}", method.parent_service().name(), method.name());
            Method {
                request: request(&method, &name),
                required: required(&method),
                further: further(&method),
                name,
            }
        })
        .collect()
}

/// Calls a method; of one that answers with a stream, its beginning counts.
pub async fn call(client: &Client, method: &Method) -> Result<Answer, Failure> {
    if method.name.ends_with("ImportEntities") {
        return client.import(&[json!({"type": ""})]).await;
    }
    if spelling::method(&method.name).is_server_streaming() {
        let stream = client.stream(&method.name, method.request.clone(), &[]).await?;
        return Ok(Answer { json: Value::Null, http: None, headers: stream.headers().to_vec() });
    }
    client.call(&method.name, method.request.clone()).await
}

#[test]
fn every_method_declares_scopes_that_there_are() {
    let methods = methods();
    assert!(methods.len() > 60, "{}", methods.len());
    for Method { name, required, further, .. } in &methods {
        let mut all = further.iter().chain([required]);
        assert!(
            all.all(|scope| SCOPES.contains(&scope.as_str())),
            "{name}: {required} {further:?}"
        );
        assert!(!further.contains(required), "{name}");
    }
    // Each scope is of use to some method.
    for scope in SCOPES {
        let is_used = |method: &Method| {
            method.required == *scope || method.further.iter().any(|further| further == scope)
        };
        assert!(methods.iter().any(is_used), "no method needs {scope}");
    }
}

scenario! {
    async fn a_key_of_one_scope_does_what_the_scope_is_for_and_nothing_else(world: &World) {
        let methods = methods();
        for scope in SCOPES {
            let client = world.client("acme", "test", &[scope]);
            for method in &methods {
                let Method { name, required, further, .. } = method;
                let outcome = call(&client, method).await;
                let refused = outcome.err().filter(|failure| failure.code == "permission_denied");
                let Some(refused) = refused else {
                    assert!(*scope == "admin" || scope == required, "{name} is open to {scope}");
                    continue;
                };
                let named = refused.members["required_scope"].as_str().unwrap();
                assert_ne!(*scope, "admin", "{name}: {refused:#?}");
                assert!(
                    if scope == required { further.iter().any(|scope| scope == named) } else { named == required },
                    "{name} with {scope}: {refused:#?}"
                );
                assert_eq!(refused.http.unwrap_or(403), 403);
            }
        }
    }

    async fn a_secret_that_opens_nothing_is_refused_by_every_method(world: &World) {
        let nobody = world.client.with_secret(&format!("sk_test_{}", "A".repeat(43)));
        for method in methods() {
            let refused = call(&nobody, &method).await.unwrap_err();
            assert_eq!(refused.code, "invalid_credentials", "{}", method.name);
        }
    }
}
