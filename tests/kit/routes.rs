//! Which request each method is, as the four contracts say, written by hand and apart from the gateway's rules.

/// The part of a request that goes into the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing: what is not in the path goes into the query.
    None,
    /// All that is not in the path.
    Rest,
    /// This member; what else is not in the path goes into the query.
    Member(&'static str),
    /// One member a line, from a stream of requests.
    Lines(&'static str),
}

/// How a caller shows its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// `apikey: KEY`
    ApiKey,
    /// `Authorization: Bearer KEY`
    Bearer,
}

/// One request of a contract.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method that it calls.
    pub rpc: &'static str,
    /// The HTTP method.
    pub method: &'static str,
    /// The path, with members of the request in braces.
    pub path: &'static str,
    /// The contents of the body.
    pub body: Body,
    /// How the contract's callers show their key.
    pub credential: Credential,
    /// True if the contract spells members in camel case.
    pub camel_case: bool,
    /// The member of the response that is its body; all of it, if there is none.
    pub answer: Option<&'static str>,
}

impl Route {
    const fn answering(self, member: &'static str) -> Route {
        Route { answer: Some(member), ..self }
    }
}

const fn snake(rpc: &'static str, method: &'static str, path: &'static str, body: Body) -> Route {
    Route {
        rpc,
        method,
        path,
        body,
        credential: Credential::Bearer,
        camel_case: false,
        answer: None,
    }
}

const fn camel(rpc: &'static str, method: &'static str, path: &'static str, body: Body) -> Route {
    Route {
        rpc,
        method,
        path,
        body,
        credential: Credential::Bearer,
        camel_case: true,
        answer: None,
    }
}

const fn api_key(rpc: &'static str, method: &'static str, path: &'static str) -> Route {
    Route {
        rpc,
        method,
        path,
        body: Body::None,
        credential: Credential::ApiKey,
        camel_case: false,
        answer: None,
    }
}

/// Every request. Of those of one method, the first whose body's member the request holds is taken.
pub const ROUTES: &[Route] = &[
    api_key("RemovalService/RemoveEntity", "DELETE", "/v5/entities/{entity_id}"),
    api_key("RemovalService/GetRemovalJob", "GET", "/v5/entities/jobs/{job_id}"),
    api_key("RemovalService/ListRemovalJobs", "GET", "/v5/entities/jobs"),
    snake("RemovalService/PreviewRemoval", "GET", "/v1/entities/{entity_id}/removal", Body::None),
    snake("RemovalService/GetRemovalPolicy", "GET", "/v1/removal-policy", Body::None),
    snake(
        "RemovalService/UpdateRemovalPolicy",
        "PATCH",
        "/v1/removal-policy",
        Body::Member("policy"),
    ),
    snake("PortfolioService/CreatePortfolio", "POST", "/v1/portfolios", Body::Rest),
    snake("PortfolioService/GetPortfolio", "GET", "/v1/portfolios/{portfolio_id}", Body::None),
    snake("PortfolioService/ListPortfolios", "GET", "/v1/portfolios", Body::None),
    snake("PortfolioService/UpdatePortfolio", "PATCH", "/v1/portfolios/{portfolio_id}", Body::Rest),
    snake(
        "PortfolioService/DeletePortfolio",
        "DELETE",
        "/v1/portfolios/{portfolio_id}",
        Body::None,
    ),
    snake(
        "PortfolioService/BatchAttachEntities",
        "POST",
        "/v1/portfolios/{portfolio_id}/entities:batchAttach",
        Body::Rest,
    ),
    snake(
        "PortfolioService/BatchDetachEntities",
        "POST",
        "/v1/portfolios/{portfolio_id}/entities:batchDetach",
        Body::Rest,
    ),
    snake(
        "PortfolioService/ListPortfolioEntities",
        "GET",
        "/v1/portfolios/{portfolio_id}/entities",
        Body::None,
    ),
    snake(
        "PortfolioService/ExportPortfolio",
        "GET",
        "/v1/portfolios/{portfolio_id}/export",
        Body::None,
    ),
    snake(
        "PortfolioService/AttachEntity",
        "POST",
        "/v1/portfolios/{portfolio_id}/entities",
        Body::Rest,
    ),
    snake(
        "PortfolioService/DetachEntity",
        "DELETE",
        "/v1/portfolios/{portfolio_id}/entities/{entity_id}",
        Body::None,
    ),
    snake("EntityService/CreateEntity", "POST", "/v1/entities", Body::Member("entity")),
    snake("EntityService/BatchCreateEntities", "POST", "/v1/entities:batchCreate", Body::Rest),
    snake("EntityService/BatchGetEntities", "GET", "/v1/entities:batchGet", Body::None),
    snake("EntityService/ListEntities", "GET", "/v1/entities", Body::None),
    snake(
        "EntityService/UpdateEntity",
        "PATCH",
        "/v1/entities/{entity_id}",
        Body::Member("entity"),
    ),
    snake(
        "EntityService/CompleteOnboarding",
        "POST",
        "/v1/entities/{entity_id}:completeOnboarding",
        Body::Rest,
    ),
    snake("EntityService/PlaceHold", "POST", "/v1/entities/{entity_id}:placeHold", Body::Rest),
    snake("EntityService/ReleaseHold", "POST", "/v1/entities/{entity_id}:releaseHold", Body::Rest),
    snake(
        "EntityService/PutDependent",
        "PUT",
        "/v1/entities/{entity_id}/dependents/{kind}/{dependent_id}",
        Body::Rest,
    ),
    snake(
        "EntityService/GetDependent",
        "GET",
        "/v1/entities/{entity_id}/dependents/{kind}/{dependent_id}",
        Body::None,
    ),
    snake("EntityService/ListDependents", "GET", "/v1/entities/{entity_id}/dependents", Body::None),
    snake(
        "EntityService/DeleteDependent",
        "DELETE",
        "/v1/entities/{entity_id}/dependents/{kind}/{dependent_id}",
        Body::None,
    ),
    snake("EntityService/ListTombstones", "GET", "/v1/tombstones", Body::None),
    snake("EntityService/GetEntity", "GET", "/v1/entities/{entity_id}", Body::None),
    snake("EntityService/ImportEntities", "POST", "/v1/entities:import", Body::Lines("entity")),
    snake(
        "AttributeIndexService/CreateAttributeIndex",
        "POST",
        "/v1/attribute-indexes",
        Body::Rest,
    ),
    snake(
        "AttributeIndexService/GetAttributeIndex",
        "GET",
        "/v1/attribute-indexes/{attribute}",
        Body::None,
    ),
    snake("AttributeIndexService/ListAttributeIndexes", "GET", "/v1/attribute-indexes", Body::None),
    snake(
        "AttributeIndexService/DeleteAttributeIndex",
        "DELETE",
        "/v1/attribute-indexes/{attribute}",
        Body::None,
    ),
    camel(
        "BulkDeleteService/StartBulkDelete",
        "POST",
        "/api/{tenant}/entities/_delete",
        Body::Member("spec"),
    ),
    camel(
        "BulkDeleteService/StartBulkDelete",
        "POST",
        "/api/{tenant}/entities/_deleteByUris",
        Body::Member("uris"),
    ),
    camel("BulkDeleteService/StartBulkDelete", "DELETE", "/api/{tenant}/entities", Body::None),
    camel("BulkDeleteService/PauseTask", "PUT", "/api/{tenant}/tasks/{task_id}/_pause", Body::None),
    camel(
        "BulkDeleteService/ResumeTask",
        "PUT",
        "/api/{tenant}/tasks/{task_id}/_resume",
        Body::None,
    ),
    camel("BulkDeleteService/StopTask", "PUT", "/api/{tenant}/tasks/{task_id}/_stop", Body::None),
    camel("BulkDeleteService/UpdateTask", "PATCH", "/api/{tenant}/tasks/{task_id}", Body::Rest),
    camel("BulkDeleteService/WatchTask", "GET", "/api/{tenant}/tasks/{task_id}/_watch", Body::None),
    camel("BulkDeleteService/GetTask", "GET", "/api/{tenant}/tasks/{task_id}", Body::None),
    camel(
        "BulkDeleteService/CheckConsistency",
        "POST",
        "/api/{tenant}/_checkConsistency",
        Body::None,
    ),
    camel("BulkDeleteService/ListTasks", "GET", "/api/{tenant}/tasks", Body::None)
        .answering("tasks"),
    camel("BulkDeleteService/CountTasks", "GET", "/api/{tenant}/tasks/_total", Body::None),
    camel("BulkDeleteService/ListTaskHistory", "GET", "/api/{tenant}/tasks/history", Body::None)
        .answering("tasks"),
    camel(
        "BulkDeleteService/CountTaskHistory",
        "GET",
        "/api/{tenant}/tasks/history/_total",
        Body::None,
    ),
    camel(
        "BulkDeleteService/ListTaskFindings",
        "GET",
        "/api/{tenant}/tasks/{task_id}/findings",
        Body::None,
    ),
    camel(
        "BulkDeleteService/ListTaskExcludes",
        "GET",
        "/api/{tenant}/tasks/{task_id}/excludes",
        Body::None,
    ),
    camel(
        "BulkDeleteService/ListTaskFailures",
        "GET",
        "/api/{tenant}/tasks/{task_id}/failures",
        Body::None,
    ),
    snake("AccessService/CreateKey", "POST", "/v1/keys", Body::Rest),
    snake("AccessService/GetKey", "GET", "/v1/keys/{key_id}", Body::None),
    snake("AccessService/ListKeys", "GET", "/v1/keys", Body::None),
    snake("AccessService/UpdateKey", "PATCH", "/v1/keys/{key_id}", Body::Rest),
    snake("AccessService/RotateKey", "POST", "/v1/keys/{key_id}:rotate", Body::Rest),
    snake("AccessService/RevokeKey", "POST", "/v1/keys/{key_id}:revoke", Body::Rest),
    snake("EventService/ListEvents", "GET", "/v1/events", Body::None),
    snake("EventService/WatchEvents", "GET", "/v1/events:watch", Body::None).answering("event"),
    camel("OffboardingService/RequestOffboarding", "POST", "/v1/offboarding/entities", Body::Rest),
    camel(
        "OffboardingService/GetOffboardingRequest",
        "GET",
        "/v1/offboarding/entities/{offboarding_request_id}",
        Body::None,
    ),
    camel(
        "OffboardingService/ListOffboardingRequests",
        "GET",
        "/v1/offboarding/entities",
        Body::None,
    ),
    camel(
        "OffboardingService/WatchOffboardingRequest",
        "GET",
        "/v1/offboarding/entities/{offboarding_request_id}:watch",
        Body::None,
    ),
    camel(
        "OffboardingService/CancelOffboardingRequest",
        "PATCH",
        "/v1/offboarding/entities/{offboarding_request_id}/cancel",
        Body::None,
    ),
];
