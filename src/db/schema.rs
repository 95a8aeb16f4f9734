//! The tables that are queried through diesel's typed interface. Hand-written statements name the others; `migrations/` has all of them.

diesel::table! {
    realm (id) {
        id -> Int4,
        org -> Text,
        mode -> Text,
        settings -> Jsonb,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    api_key (id) {
        id -> Uuid,
        realm_id -> Int4,
        principal_id -> Uuid,
        name -> Text,
        email -> Nullable<Text>,
        secret_sha256 -> Bytea,
        secret_prefix -> Text,
        scopes -> Array<Text>,
        allowed -> Array<Cidr>,
        api_version -> Nullable<Date>,
        created_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
        version -> Int8,
        updated_at -> Timestamptz,
        last_used_at -> Nullable<Timestamptz>,
        previous_sha256 -> Nullable<Bytea>,
        previous_prefix -> Nullable<Text>,
        previous_expires_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    access_policy (realm_id) {
        realm_id -> Int4,
        allowed -> Array<Cidr>,
        version -> Int8,
        updated_at -> Timestamptz,
        updated_by -> Nullable<Uuid>,
    }
}

diesel::table! {
    entity (realm_id, id) {
        realm_id -> Int4,
        id -> Text,
        incarnation -> Uuid,
        #[sql_name = "type"]
        type_ -> Text,
        state -> Text,
        attributes -> Jsonb,
        crosswalks -> Jsonb,
        components -> Array<Uuid>,
        portfolio_id -> Nullable<Text>,
        attached_at -> Nullable<Timestamptz>,
        hold_reason -> Nullable<Text>,
        hold_placed_by -> Nullable<Uuid>,
        hold_placed_at -> Nullable<Timestamptz>,
        hold_by_admin -> Bool,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
        deleted_by -> Nullable<Uuid>,
    }
}

diesel::table! {
    portfolio (realm_id, id) {
        realm_id -> Int4,
        id -> Text,
        name -> Text,
        shared_registered_agent_id -> Nullable<Text>,
        shared_compliance_calendar -> Bool,
        metadata -> Jsonb,
        entity_count -> Int8,
        version -> Int8,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    offboarding_request (realm_id, id) {
        realm_id -> Int4,
        id -> Uuid,
        entity_id -> Text,
        incarnation -> Uuid,
        principal_id -> Uuid,
        api_key_id -> Uuid,
        status -> Text,
        components -> Array<Uuid>,
        created_at -> Timestamptz,
        execute_after -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        finished_at -> Nullable<Timestamptz>,
        due_at -> Nullable<Timestamptz>,
        attempts -> Int4,
        lease_token -> Nullable<Int8>,
        lease_owner -> Nullable<Text>,
        removed -> Nullable<Jsonb>,
        error_code -> Nullable<Text>,
        error_message -> Nullable<Text>,
        last_error_code -> Nullable<Text>,
        last_error_message -> Nullable<Text>,
        next_attempt_at -> Nullable<Timestamptz>,
        followed -> Bool,
    }
}

diesel::table! {
    bulk_delete_failure (realm_id, bulk_delete_id, entity_id) {
        realm_id -> Int4,
        bulk_delete_id -> Uuid,
        entity_id -> Text,
        reason -> Text,
        occurred_at -> Timestamptz,
    }
}

diesel::allow_tables_to_appear_in_same_query!(realm, api_key, access_policy);
