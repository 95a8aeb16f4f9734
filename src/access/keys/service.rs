//! `offboard.v1.AccessService`.

use diesel::PgConnection;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::access::keys::answers::to_proto;
use crate::access::keys::model::{KeyFields, KeyUpdate, check_key_id, check_rotation};
use crate::access::keys::policy::PolicyChange;
use crate::access::keys::queries::KeyPosition;
use crate::access::keys::{change_queries, policy_queries, queries};
use crate::access::{Caller, Once, Secret};
use crate::db::{Db, Page, PageSize, clock, paged};
use crate::error::{Error, Violations};
use crate::filter::only_filter;
use crate::proto::v1::access_service_server::AccessService as Service;
use crate::proto::{answer, v1};

paged!(v1::ListKeysRequest, "AccessService/ListKeys", PageSize { default: 100, max: 1_000 });

/// The keys of a realm, and where they may be used from.
pub struct AccessService {
    db: Db,
    /// How many a realm may have that have not ended.
    keys_per_realm: u32,
}

impl AccessService {
    /// The service on this database, for so many keys in a realm that have not ended.
    pub fn new(db: Db, keys_per_realm: u32) -> Self {
        AccessService { db, keys_per_realm }
    }
}

#[tonic::async_trait]
impl Service for AccessService {
    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::KeyWithSecret>, Status> {
        let once = Once::of(&request)?;
        let fields = KeyFields::check(request.into_inner(), clock::now())?;
        let (caller, at_most) = (once.caller().clone(), self.keys_per_realm);
        let create = move |connection: &mut PgConnection| {
            let secret = Secret::generate(caller.realm.mode())?;
            let created = change_queries::create(connection, &caller, &fields, &secret, at_most)?;
            let path = format!("/v1/keys/{}", created.id);
            let message = v1::KeyWithSecret {
                key: Some(to_proto(created, &caller)),
                secret: Some(secret.reveal().to_owned()),
            };
            Ok(answer::created(message, &path))
        };
        once.transaction(&self.db, create).await
    }

    async fn get_key(
        &self,
        request: Request<v1::GetKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let caller = Caller::of(&request)?;
        let key = checked(&request.into_inner().key_id)?;
        let realm = caller.realm.clone();
        let found = self.db.run(move |connection| queries::get(connection, &realm, key)).await?;
        let found = found.ok_or_else(|| Error::not_found("key", &key.to_string()))?;
        Ok(Response::new(to_proto(found, &caller)))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysResponse>, Status> {
        let caller = Caller::of(&request)?;
        let realm = caller.realm.clone();
        let mut request = request.into_inner();
        let mut faults = Violations::new();
        let descending = is_descending(&request.order_by, &mut faults);
        let page: Page<KeyPosition> =
            Page::check(self.db.seal().await?, &realm, &mut request, &mut faults);
        let filter = only_filter(&queries::KEY, &request.filter, faults)?;
        let (after, limit) = (page.after().cloned(), page.limit());
        let read = self.db.run(move |connection| {
            let order = (after.as_ref(), descending);
            queries::list(connection, &realm, filter.as_ref(), order, limit)
        });
        let mut found = read.await?;
        let next_page_token =
            page.cut(&mut found, |last| KeyPosition { created_at: last.created_at, id: last.id })?;
        let keys = found.into_iter().map(|key| to_proto(key, &caller)).collect();
        Ok(Response::new(v1::ListKeysResponse { keys, next_page_token }))
    }

    async fn update_key(
        &self,
        request: Request<v1::UpdateKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let once = Once::of(&request)?;
        let (key, update) = KeyUpdate::check(request.into_inner(), clock::now())?;
        let (caller, at_most) = (once.caller().clone(), self.keys_per_realm);
        let change = move |connection: &mut PgConnection| {
            let updated = change_queries::update(connection, &caller, (key, &update), at_most)?;
            Ok(Response::new(to_proto(updated, &caller)))
        };
        once.transaction(&self.db, change).await
    }

    async fn rotate_key(
        &self,
        request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::KeyWithSecret>, Status> {
        let once = Once::of(&request)?;
        let (key, overlap, expected) = check_rotation(request.into_inner())?;
        let caller = once.caller().clone();
        let rotate = move |connection: &mut PgConnection| {
            let secret = Secret::generate(caller.realm.mode())?;
            let wanted = (key, expected);
            let rotated = change_queries::rotate(connection, &caller, wanted, &secret, overlap)?;
            Ok(Response::new(v1::KeyWithSecret {
                key: Some(to_proto(rotated, &caller)),
                secret: Some(secret.reveal().to_owned()),
            }))
        };
        once.transaction(&self.db, rotate).await
    }

    async fn revoke_key(
        &self,
        request: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::Key>, Status> {
        let once = Once::of(&request)?;
        let v1::RevokeKeyRequest { key_id, expected_version } = request.into_inner();
        let key = checked(&key_id)?;
        let caller = once.caller().clone();
        let revoke = move |connection: &mut PgConnection| {
            let revoked = change_queries::revoke(connection, &caller, key, expected_version)?;
            Ok(Response::new(to_proto(revoked, &caller)))
        };
        once.transaction(&self.db, revoke).await
    }

    async fn get_access_policy(
        &self,
        request: Request<v1::GetAccessPolicyRequest>,
    ) -> Result<Response<v1::AccessPolicy>, Status> {
        let realm = Caller::of(&request)?.realm;
        let read = move |connection: &mut PgConnection| {
            Ok(Response::new(policy_queries::get(connection, &realm)?.to_proto(&realm)))
        };
        Ok(self.db.run(read).await?)
    }

    async fn update_access_policy(
        &self,
        request: Request<v1::UpdateAccessPolicyRequest>,
    ) -> Result<Response<v1::AccessPolicy>, Status> {
        let once = Once::of(&request)?;
        let change = PolicyChange::check(request.into_inner())?;
        let caller = once.caller().clone();
        let update = move |connection: &mut PgConnection| {
            let policy = policy_queries::update(connection, &caller, &change)?;
            Ok(Response::new(policy.to_proto(&caller.realm)))
        };
        once.transaction(&self.db, update).await
    }
}

/// The id of a key, if it is one.
fn checked(key_id: &str) -> Result<Uuid, Error> {
    let mut faults = Violations::new();
    let key = check_key_id(key_id, &mut faults);
    faults.check().map(|()| key)
}

/// Reads `order_by` (AIP-132): whether the last key comes first. Spaces more or less do not count.
fn is_descending(order_by: &str, faults: &mut Violations) -> bool {
    match order_by.split_whitespace().collect::<Vec<_>>().as_slice() {
        [] | ["created_at"] => false,
        ["created_at", "desc"] => true,
        _ => {
            faults.add("order_by", "invalid", "must be `created_at` or `created_at desc`");
            false
        }
    }
}
