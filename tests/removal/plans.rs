//! The hot statements find their rows by key, however large the tables are.

use diesel::connection::SimpleConnection;
use diesel::sql_types::Json;
use diesel::{QueryableByName, RunQueryDsl, sql_query};
use offboard::bulk_delete::bound::Bound;
use offboard::bulk_delete::chunk::{ChunkEnd, Chunks};
use offboard::bulk_delete::selector::Selector;
use offboard::entity::dependent_queries::{Delete, ListDependents, Put, ReadSpot};
use offboard::entity::list::{Key, Order};
use offboard::entity::list_queries;
use offboard::entity::tombstone_queries::ListTombstones;
use offboard::offboarding::queries::{Cancel, Request};
use offboard::offboarding::removal_queries::{ClaimRequests, Remove};
use offboard::portfolio::batch_queries::{AttachMany, DetachMany, LockEntities};
use offboard::portfolio::export_queries::ReadPlaces;
use offboard::portfolio::queries::{Attach, Detach, GetPortfolio};
use offboard::portfolio::registry_queries::ListPortfolios;
use offboard::task::model::DeleteMode;

use crate::given::Many;
use crate::kit::*;

/// A parameter of a statement: its name, its SQL type, and a value.
type Parameter = (&'static str, &'static str, &'static str);

const REALM: Parameter = ("realm", "int4", "1");
const PRINCIPAL: Parameter = ("principal", "uuid", "'0190aaaa-0000-7000-8000-000000000001'");
const ID: Parameter = ("id", "uuid", "'0190aaaa-0000-7000-8000-000000000002'");
const ENTITY: Parameter = ("entity", "text", "'e-025000'");
const PORTFOLIO: Parameter = ("portfolio", "text", "'p'");
const SHOWN: Parameter = ("shown", "int8", "1000");

/// The large tables of a realm.
pub const LARGE: [&str; 6] = [
    "entity",
    "dependent",
    "offboarding_request",
    "attribute_index",
    "tombstone",
    "idempotency_subject",
];

/// Entities, 10 of them leaving, with what hangs on them and what went before.
pub fn populate(database: &Database, count: i64) {
    database.given_many(Many { prefix: "e", count, dependents: 3, portfolio: Some("p") });
    database.sql(&format!(
        "INSERT INTO attribute_index (realm_id, attribute, value, entity_id) SELECT realm_id, 'n', attributes ->> 'n', id FROM entity;
         INSERT INTO offboarding_request (realm_id, id, entity_id, incarnation, principal_id, api_key_id, status, execute_after, due_at,
                                          started_at, finished_at, removed, lease_token, lease_owner)
         SELECT realm_id, gen_random_uuid(), id, incarnation, incarnation, incarnation, CASE WHEN leaving THEN 'running' ELSE 'succeeded' END,
                now(), CASE WHEN leaving THEN now() END, now(), CASE WHEN NOT leaving THEN now() END, CASE WHEN NOT leaving THEN '{{}}'::jsonb END,
                1, 'x'
         FROM (SELECT *, id > 'e-{:06}' AS leaving FROM entity) e;
         INSERT INTO idempotency_subject (realm_id, kind, subject, api_key_id, key, part) SELECT realm_id, 'entity', id, incarnation, id, 0 FROM entity;
         INSERT INTO tombstone (realm_id, entity_id, incarnation, type, version, created_at, updated_at, removed_by, job_kind, job_id)
         SELECT realm_id, 'gone-' || id, incarnation, type, version, created_at, updated_at, incarnation, 'bulk_delete', incarnation FROM entity;",
        count - 10
    ));
    // A row whose commit is not on disk yet cannot be marked as visible to all, and the tests' Postgres may commit before it writes.
    database.sql("SET synchronous_commit = on; CREATE TABLE written ()");
    database.sql("VACUUM ANALYZE");
}

/// A node of a plan: what it does, to which table, by which index; and, of a loop, what it reads again and again.
#[derive(Clone, Debug)]
struct Node {
    kind: String,
    table: String,
    index: String,
    again: String,
}

/// The plan of a prepared statement: for these values, or for any.
fn explain(database: &Database, text: &str, parameters: &[Parameter], generic: bool) -> Vec<Node> {
    #[derive(QueryableByName)]
    struct Plan {
        #[diesel(sql_type = Json, column_name = "QUERY PLAN")]
        plan: Value,
    }
    let numbered =
        parameters.iter().enumerate().fold(text.to_owned(), |text, (n, (name, _, _))| {
            assert!(text.contains(&format!("{{{name}}}")), "there is no parameter {name}");
            text.replace(&format!("{{{name}}}"), &format!("${}", n + 1))
        });
    let list = |part: fn(&Parameter) -> &'static str| {
        parameters.iter().map(part).collect::<Vec<_>>().join(", ")
    };
    let mode = if generic { "force_generic_plan" } else { "force_custom_plan" };
    let mut connection = database.connection();
    let prepare = format!(
        "SET plan_cache_mode = {mode}; PREPARE hot ({}) AS {numbered}",
        list(|(_, sql_type, _)| sql_type)
    );
    connection.batch_execute(&prepare).unwrap_or_else(|error| panic!("{prepare}: {error}"));
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE hot ({})", list(|(_, _, value)| value));
    let plan: Plan = sql_query(explain).get_result(&mut connection).unwrap();
    let mut nodes = Vec::new();
    collect(&plan.plan[0]["Plan"], &mut nodes);
    nodes
}

fn collect(plan: &Value, nodes: &mut Vec<Node>) {
    let word = |name: &str| plan[name].as_str().unwrap_or_default().to_owned();
    let again = plan["Plans"][1]["CTE Name"]
        .as_str()
        .filter(|_| plan["Node Type"] == "Nested Loop")
        .unwrap_or_default()
        .to_owned();
    nodes.push(Node {
        kind: word("Node Type"),
        table: word("Relation Name"),
        index: word("Index Name"),
        again,
    });
    plan["Plans"].as_array().into_iter().flatten().for_each(|child| collect(child, nodes));
}

/// No large table is read from end to end, and each of these indexes is used.
fn assert_by_key(
    database: &Database,
    what: &str,
    text: &str,
    parameters: &[Parameter],
    indexes: &[&str],
) {
    for generic in [false, true] {
        let nodes = explain(database, text, parameters, generic);
        let scan = nodes
            .iter()
            .find(|node| node.kind.ends_with("Seq Scan") && LARGE.contains(&node.table.as_str()));
        assert!(
            scan.is_none(),
            "{what} (generic: {generic}) reads all of a table: {scan:?} in {nodes:#?}"
        );
        let quadratic = nodes
            .iter()
            .find(|node| ["picked", "doomed", "gone", "missed"].contains(&node.again.as_str()));
        assert!(
            quadratic.is_none(),
            "{what} (generic: {generic}) loops over a whole chunk in a loop: {quadratic:?} in {nodes:#?}"
        );
        for index in indexes {
            assert!(
                nodes.iter().any(|node| node.index == *index),
                "{what} (generic: {generic}) does not use {index}: {nodes:#?}"
            );
        }
    }
}

#[tokio::test]
async fn hot_statements_find_their_rows_by_key() {
    let world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    world.given_portfolio("p").await;
    populate(&world.database, 50_000);
    for (portfolio, text, parameters) in [
        ("get portfolio", GetPortfolio::TEXT, [REALM, ("id", "text", "'p'"), SHOWN].as_slice()),
        ("detach", Detach::TEXT, &[REALM, PRINCIPAL, PORTFOLIO, ENTITY, SHOWN]),
    ] {
        let nodes = explain(&world.database, text, parameters, true);
        let from_index = nodes
            .iter()
            .any(|node| node.kind == "Index Only Scan" && node.index == "entity_portfolio");
        assert!(from_index, "{portfolio} reads the rows of the members it shows: {nodes:#?}");
    }
    let check = |what: &str, text: &str, parameters: &[Parameter], indexes: &[&str]| {
        assert_by_key(&world.database, what, text, parameters, indexes)
    };

    let membership = [REALM, PRINCIPAL, PORTFOLIO, ENTITY, SHOWN];
    check("detach", Detach::TEXT, &membership, &["entity_pkey", "entity_portfolio"]);
    check("attach", Attach::TEXT, &membership, &["entity_pkey", "entity_portfolio"]);
    check(
        "get portfolio",
        GetPortfolio::TEXT,
        &[REALM, ("id", "text", "'p'"), SHOWN],
        &["entity_portfolio"],
    );
    let listing =
        [REALM, ("after", "text", "''"), ("limit", "int8", "51"), SHOWN, ("room", "int8", "20000")];
    check(
        "list portfolios",
        &ListPortfolios::TEXT.replace("{filter}", ""),
        &listing,
        &["entity_portfolio"],
    );
    let some = ("entities", "text[]", "'{e-000101,e-020000,e-000103,e-049000,e-030000}'");
    check("lock many", LockEntities::TEXT, &[REALM, some], &["entity_pkey"]);
    let many = [REALM, PRINCIPAL, PORTFOLIO, some];
    check("attach many", AttachMany::TEXT, &many, &["entity_pkey"]);
    check("detach many", DetachMany::TEXT, &many, &["entity_pkey"]);
    let behind = [
        REALM,
        PORTFOLIO,
        ("at", "timestamptz", "now() - interval '1 day'"),
        ("id", "text", "'e'"),
        ("limit", "int8", "1000"),
    ];
    check("export", ReadPlaces::TEXT, &behind, &["entity_portfolio"]);
    let wake = [
        ("grace", "float8", "0"),
        ("max_grace", "float8", "60"),
        ("channel", "text", "'offboard'"),
        ("topic", "text", "'offboarding'"),
    ];
    let asking =
        [[REALM, ID, ENTITY, PRINCIPAL, ("key", "uuid", PRINCIPAL.2)].as_slice(), &wake].concat();
    check("request", Request::TEXT, &asking, &["entity_pkey", "offboarding_request_due"]);
    let canceling =
        [REALM, ID, PRINCIPAL, ("from", "text", "'pending'"), ("to", "text", "'canceled'")];
    check("cancel", Cancel::TEXT, &canceling, &["offboarding_request_pkey", "entity_pkey"]);
    let claiming = [("owner", "text", "'x'"), ("lease", "float8", "15"), ("limit", "int8", "100")];
    check(
        "claim",
        ClaimRequests::TEXT,
        &claiming,
        &["offboarding_request_turn", "offboarding_request_due", "offboarding_request_pkey"],
    );
    let batch = [
        ("realms", "int4[]", "array_fill(1, ARRAY[100])"),
        ("ids", "uuid[]", "array_fill('0190aaaa-0000-7000-8000-000000000002'::uuid, ARRAY[100])"),
        ("tokens", "int8[]", "array_fill(1::int8, ARRAY[100])"),
        ("erased", "bytea", "'x'"),
    ];
    let by_key =
        ["offboarding_request_pkey", "entity_pkey", "dependent_pkey", "attribute_index_entity"];
    check("remove", Remove::TEXT, &batch, &by_key);

    let task = [
        REALM,
        ("task", "uuid", ID.2),
        ("slice", "int4", "0"),
        ("token", "int8", "1"),
        ("cursor", "text", "''"),
        ("until", "text", "'~'"),
        ("ordinal", "int8", "9223372036854775807"),
        ("limit", "int8", "500"),
        ("is_end", "bool", "true"),
        ("lease", "float8", "15"),
    ];
    let ahead = [
        REALM,
        ("cursor", "text", "''"),
        ("until", "text", "'~'"),
        ("read_limit", "int8", "20000"),
    ];
    check("where a chunk ends", ChunkEnd::TEXT, &ahead, &["entity_pkey"]);
    let by_type = [task.as_slice(), &[("types", "text[]", "'{HCP}'")]].concat();
    let bound = Bound::Ordinal(i64::MAX);
    for mode in [DeleteMode::Hard, DeleteMode::Soft] {
        let hard = ["entity_pkey", "dependent_pkey", "attribute_index_entity"];
        let indexes = if mode == DeleteMode::Hard { hard.as_slice() } else { &hard[..1] };
        check(
            "chunk by type",
            Chunks::new(Selector::new(mode, false, None, Some("HCP"), bound)).text(),
            &by_type,
            indexes,
        );
        check(
            "chunk by list",
            Chunks::new(Selector::new(mode, true, None, None, bound)).text(),
            &task,
            indexes,
        );
    }
}

/// A page of a list is read along its index from where it starts: nothing is sorted, and no large table is read from end to end.
fn assert_in_order(
    database: &Database,
    what: &str,
    text: &str,
    parameters: &[Parameter],
    index: &str,
) {
    assert_by_key(database, what, text, parameters, &[index]);
    for generic in [false, true] {
        let nodes = explain(database, text, parameters, generic);
        assert!(
            nodes.iter().all(|node| !node.kind.contains("Sort")),
            "{what} (generic: {generic}) sorts: {nodes:#?}"
        );
    }
}

#[tokio::test]
async fn a_page_is_read_along_its_index() {
    let world = World::start_with(Protocol::Grpc, &["--roles", "grpc,gateway"]).await;
    world.given_portfolio("p").await;
    populate(&world.database, 50_000);
    // Created one after the other, and in another order than that of their ids.
    world.database.sql("UPDATE entity SET created_at = created_at - make_interval(secs => (attributes ->> 'n')::int * 7919 % 50000)");
    world.database.sql("VACUUM ANALYZE entity");
    let place =
        [("id", "text", "'e-025000'"), ("created_at", "timestamptz", "now() - interval '6 hours'")];
    let limit = ("limit", "int8", "101");
    for descending in [false, true] {
        for (key, index, behind) in
            [(Key::Id, "entity_pkey", &place[..1]), (Key::CreatedAt, "entity_created", &place[..])]
        {
            let order = Order { key, descending };
            let what = format!("{order:?}");
            assert_in_order(
                &world.database,
                &what,
                &list_queries::text(order, false, false),
                &[REALM, limit],
                index,
            );
            let next = [[REALM].as_slice(), behind, &[limit]].concat();
            assert_in_order(
                &world.database,
                &what,
                &list_queries::text(order, false, true),
                &next,
                index,
            );
            // For a filter with few matches the planner may rather read all, and it knows best.
            let filtered =
                list_queries::text(order, true, true).replace("{predicate}", "(e.type = 'HCP')");
            assert_in_order(&world.database, &what, &filtered, &next, index);
        }
    }
    let part = [ENTITY, ("kind", "text", "'task'"), ("id", "text", "'1'")];
    let after = [
        ("after_kind", "text", "'task'"),
        ("after_id", "text", "''"),
        ("until", "text", "'task'"),
        limit,
    ];
    let dependents = [[REALM, ENTITY].as_slice(), &after].concat();
    assert_in_order(
        &world.database,
        "list dependents",
        &ListDependents::TEXT.replace("{filter}", ""),
        &dependents,
        "dependent_pkey",
    );
    let after = [
        ("after_entity", "text", "'gone-e-025000'"),
        ("after_incarnation", "uuid", ID.2),
        ("until", "text", "'~'"),
        limit,
    ];
    let tombstones = [[REALM].as_slice(), &after].concat();
    assert_in_order(
        &world.database,
        "list tombstones",
        &ListTombstones::TEXT.replace("{filter}", ""),
        &tombstones,
        "tombstone_pkey",
    );

    let spot = [[REALM].as_slice(), &part, &[("others", "int8", "9999")]].concat();
    assert_by_key(&world.database, "read spot", ReadSpot::TEXT, &spot, &["dependent_pkey"]);
    let put = [
        [REALM, PRINCIPAL].as_slice(),
        &part,
        &[("data", "jsonb", "'{}'"), ("change", "text", "'created'")],
    ]
    .concat();
    assert_by_key(&world.database, "put dependent", Put::TEXT, &put, &["entity_pkey"]);
    let delete =
        [[REALM, PRINCIPAL].as_slice(), &part, &[("change", "text", "'deleted'")]].concat();
    assert_by_key(
        &world.database,
        "delete dependent",
        Delete::TEXT,
        &delete,
        &["dependent_pkey", "entity_pkey"],
    );
}
