//! A running service: its listeners, its workers, and how they end.

use std::num::NonZeroU32;
use std::time::Duration;

use prost_reflect::DescriptorPool;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tower::Layer;

use super::admin::{AdminThread, Readiness};
use super::client::Proxies;
use super::compute::Compute;
use super::cors::Cors;
use super::drain::{Drain, Grace};
use super::grpc::Grpc;
use super::health::{self, Health};
use super::http::HttpProtocol;
use super::layers::{Methods, RateLimit};
use super::listener::{self, Connections};
use super::opening::{Opening, given, patience};
use super::ports::{Addresses, Port};
use super::settings::{mailer, nats, tokens};
use super::stack::{Limits, Streams, layers, reflection, services};
use crate::access::{
    self, ApiVersion, Authenticator, KEYS_TOPIC, Quota, Tokens, idempotency_queries,
};
use crate::bulk_delete::WORKS;
use crate::config::{Nats, Reflection, Role, Serve, Worker};
use crate::db::listen::{self, Topics};
use crate::db::outage::warn_of;
use crate::db::probe::Probe;
use crate::db::{Db, ReservedConnection, partitions, sweep};
use crate::entity::{self, IndexExecutor};
use crate::error::{Error, Result};
use crate::events::nats::NatsPublisher;
use crate::events::{self, Hub, publish_loop};
use crate::gateway::{self, Gateway};
use crate::jobs::{self, Executor, Lease, Recall, Traffic};
use crate::limits::memory::BodyMemory;
use crate::limits::responses::ResponseMemory;
use crate::offboarding::{self, OffboardingExecutor};
use crate::proto::DESCRIPTOR_SET;
use crate::task::{self, Hours, MailExecutor, TaskExecutor, WorkerOptions};

/// How long the thread that listens for wake-ups may take to end.
const LISTENING_GRACE: Duration = Duration::from_secs(2);

/// How many files are left for all that is not a connection of a caller: the admin listener and its reserve, brokers, mails, logs.
const OTHER_FILES: u64 = 400;

/// How many times larger than its JSON a message can be: `1,` in an array of a `Struct` becomes a value of 11 bytes.
const MESSAGE_OVER_JSON: usize = 8;

/// A service that runs until it is drained.
pub struct Running {
    addresses: Addresses,
    readiness: Readiness,
    _current: watch::Sender<Readiness>,
    drain: Drain,
    grace: Grace,
    listeners: JoinSet<()>,
    workers: JoinSet<()>,
    keepers: JoinSet<()>,
    admin: AdminThread,
    stop_listening: CancellationToken,
    listening: std::thread::JoinHandle<()>,
}

/// Starts the listeners for calls and the workers of `settings` on this database, at the addresses that were taken for them.
pub async fn start(
    settings: &Serve,
    opening: Opening,
    db: Db,
    instance: String,
) -> Result<Running> {
    let has = |role| settings.roles.contains(&role);
    let Opening { addresses, grpc, http, admin, readiness: current, pulse: mut keepers, .. } =
        opening;

    let mailer = mailer(&settings.mail)?;
    let publisher = if has(Role::Worker) { publisher(&settings.nats, &db).await? } else { None };
    let drain = Drain::new();
    let topics = Topics::new([
        KEYS_TOPIC,
        offboarding::queries::TOPIC,
        task::TOPIC,
        entity::index::queries::TOPIC,
    ]);
    let stop_listening = CancellationToken::new();
    let listening =
        listen::spawn(ReservedConnection::before(&db), topics.clone(), stop_listening.clone())
            .map_err(Error::internal)?;

    let probe = Probe::spawn(ReservedConnection::before(&db)).map_err(Error::internal)?;

    let tokens = match tokens(&settings.tokens) {
        Some(options) => {
            let (tokens, seen) = Tokens::load(options)?;
            keepers.spawn(tokens.clone().keep(seen));
            Some(tokens)
        }
        None => None,
    };
    let authenticator = Authenticator::new(db.clone(), tokens);
    keepers.spawn(authenticator.clone().keep_keys(topics.subscribe(KEYS_TOPIC)));
    keepers.spawn(sweep(db.clone(), "ended keys", access::keys::sweep));
    keepers.spawn(partitions::keep(db.clone()));
    keepers.spawn(sweep(db.clone(), "idempotency keys", idempotency_queries::sweep));
    keepers.spawn(sweep(
        db.clone(),
        "what idempotency records showed",
        idempotency_queries::sweep_subjects,
    ));
    keepers.spawn(sweep(db.clone(), "tombstones", offboarding::policy_queries::sweep_tombstones));
    keepers.spawn(sweep(db.clone(), "tasks", task::list_queries::sweep));
    keepers.spawn(sweep(
        db.clone(),
        "offboarding requests",
        offboarding::policy_queries::sweep_requests,
    ));
    keepers.spawn(sweep(
        db.clone(),
        "filters of tasks",
        offboarding::policy_queries::sweep_filters,
    ));
    keepers.spawn(sweep(db.clone(), "samples of bulk deletes", task::queries::sweep_samples));
    keepers.spawn(sweep(db.clone(), "positions of events", events::drop_old));
    keepers.spawn(task::rescue(db.clone(), settings.worker.poll_interval));
    keepers.spawn(listener::give_back());
    keepers.spawn(jobs::watch_clock(db.clone(), settings.worker.lease, recalls()));

    let mut listeners = JoinSet::new();
    let traffic = Traffic::default();
    let uses = authenticator.clone().keep_uses(drain.workers());
    open_listeners(
        settings,
        (&db, &probe),
        authenticator,
        &drain,
        &traffic,
        (grpc, http, &addresses),
        (&mut listeners, &mut keepers),
    )
    .await?;
    let mut workers = JoinSet::new();
    workers.spawn(uses);
    if has(Role::Worker) {
        spawn_workers(
            &settings.worker,
            &db,
            instance.clone(),
            &traffic,
            &topics,
            &drain,
            &mut workers,
        );
        if let Some(mailer) = mailer {
            let lease = Lease { owner: instance.clone(), duration: settings.worker.lease };
            let mails = MailExecutor::new(
                db.clone(),
                mailer,
                lease,
                settings.public_url.clone(),
                settings.mail.mails_per_hour,
            );
            workers.spawn(jobs::run(
                mails,
                topics.clone(),
                settings.worker.poll_interval,
                drain.workers(),
            ));
        }
    }
    if let Some(publisher) = publisher {
        let options = publish_loop::Options {
            owner: instance,
            lease: settings.worker.lease,
            poll: settings.worker.poll_interval,
        };
        workers.spawn(publish_loop::run(db.clone(), publisher, options, drain.workers()));
    }
    let readiness = health::readiness(&probe, &drain);
    current.send_replace(readiness.clone());
    let grace = Grace { notice: settings.drain_delay, in_all: settings.drain_timeout };
    Ok(Running {
        addresses,
        readiness,
        _current: current,
        drain,
        grace,
        listeners,
        workers,
        keepers,
        admin,
        stop_listening,
        listening,
    })
}

/// How each kind of work that becomes ready at a time is recalled after the clock has stepped back.
fn recalls() -> Vec<(&'static str, Recall)> {
    vec![
        ("bulk deletes", task::slice_queries::recall),
        ("mails", task::mail_queries::recall),
        ("offboarding requests", offboarding::removal_queries::recall),
        ("attribute indexes", entity::index::queries::recall),
        ("publishers", events::recall_publishers),
    ]
}

/// The publisher, if there is to be one. Its position is set before any listener opens, so that whatever is done through them is published;
/// where the database is unreachable nothing can be done.
async fn publisher(settings: &Nats, db: &Db) -> Result<Option<NatsPublisher>> {
    let Some(settings) = nats(settings) else { return Ok(None) };
    let publisher = NatsPublisher::new(settings).await?;
    if let Err(error) = publish_loop::register(db, &publisher).await {
        warn_of!(error, "the publisher cannot be registered yet");
    }
    Ok(Some(publisher))
}

async fn open_listeners(
    settings: &Serve,
    (db, probe): (&Db, &Probe),
    authenticator: Authenticator,
    drain: &Drain,
    traffic: &Traffic,
    (grpc, http, addresses): (Option<TcpListener>, Option<TcpListener>, &Addresses),
    (listeners, keepers): (&mut JoinSet<()>, &mut JoinSet<()>),
) -> Result<()> {
    let descriptors = DescriptorPool::decode(DESCRIPTOR_SET).map_err(Error::internal)?;
    let calls = RateLimit::new(Methods::served(), &settings.rates);
    keepers.spawn(calls.clone().forget());
    let memory = usize::try_from(settings.bodies.body_memory_bytes).unwrap_or(usize::MAX);
    let bodies =
        BodyMemory::new(memory, settings.bodies.body_memory_wait, settings.bodies.body_timeout);
    let responses = ResponseMemory::new(
        usize::try_from(settings.bodies.response_memory_bytes).unwrap_or(usize::MAX),
    );
    let limits = Limits {
        bodies: bodies.clone(),
        responses: responses.clone(),
        calls,
        address_failures: NonZeroU32::new(settings.rates.address_rate_limit),
        message_bytes: settings.max_body_bytes,
        concurrent_calls: settings
            .max_concurrent_calls
            .saturating_add(settings.shares.max_concurrent_streams),
        shares: settings.shares.clone(),
        reflection_streams: settings.listeners.max_reflection_streams as usize,
        reflection_needs_key: settings.listeners.reflection == Reflection::Key,
        request_timeout: settings.request_timeout,
        kept: Quota {
            records: settings.kept.idempotency_records,
            bytes: settings.kept.idempotency_bytes,
        },
        public_url: settings.public_url.clone(),
    };
    let hub = Hub::new(db.clone());
    keepers.spawn(hub.clone().run());
    keepers.spawn(hub.sequencer().clone().run());
    let sends_mail = settings.mail.smtp_url.is_some();
    let streams = Streams {
        hub,
        authenticator: authenticator.clone(),
        closing: drain.listeners(),
        sends_mail,
        keys_per_realm: settings.kept.keys_per_realm,
    };
    let (reported, failures) = limits.courtesy(&authenticator);
    let public_url = settings.public_url.as_deref();
    let layers = layers(&limits, authenticator, &descriptors, drain, traffic.clone());
    if let Some(listener) = http {
        let options = gateway::Options {
            public_url: settings.public_url.clone(),
            max_body_bytes: settings.max_body_bytes,
            bodies,
            responses,
            api_versions: ApiVersion::all().map(|version| version.to_string()).collect(),
        };
        // The gateway has checked the body against the limit; as a message it is larger.
        let routes =
            services(db, &streams, settings.max_body_bytes.saturating_mul(MESSAGE_OVER_JSON));
        let gateway = Gateway::new(descriptors.clone(), layers.layer(routes), options)
            .map_err(Error::internal)?;
        let web = layers.layer(services(db, &streams, settings.max_body_bytes));
        let courtesy = (Port::rest(addresses), reported.clone(), failures.clone());
        let protocol = HttpProtocol::new(gateway, web, Cors::new(&settings.cors_origins), courtesy);
        listeners.spawn(listener::serve(
            listener,
            protocol,
            listening("HTTP", settings),
            drain.listeners(),
        ));
    }
    if let Some(listener) = grpc {
        let (reporter, service) = tonic_health::server::health_reporter();
        let health = Health::register(reporter, &descriptors).await;
        keepers.spawn(health::report(health, probe.clone(), drain.clone()));
        let mut routes = services(db, &streams, settings.max_body_bytes).add_service(service);
        if settings.listeners.reflection != Reflection::Off {
            routes = reflection(routes).map_err(Error::internal)?;
        }
        let grpc = settings.grpc.clone();
        let options = listener::Options {
            age: (given(grpc.grpc_max_connection_age), given(grpc.grpc_max_connection_age_grace)),
            ..listening("gRPC", settings)
        };
        let protocol = Grpc {
            stack: Compute::new().stack(layers.layer(routes)),
            port: Port::grpc(addresses, public_url),
            reported,
            failures,
            base: public_url.unwrap_or_default().trim_end_matches('/').to_owned(),
        };
        listeners.spawn(listener::serve(listener, protocol, options, drain.listeners()));
    }
    Ok(())
}

/// The options that the listeners for callers have in common. Where the process may open few files, their connections leave some for everything else.
fn listening(name: &'static str, settings: &Serve) -> listener::Options {
    let listeners = &settings.listeners;
    let others = OTHER_FILES + 2 * u64::from(settings.pool.db_pool_size);
    let room = usize::try_from(listener::open_files().saturating_sub(others) / 2)
        .unwrap_or(usize::MAX)
        .max(1);
    let wanted = listeners.max_connections as usize;
    if room < wanted {
        tracing::warn!(
            listener = name,
            connections = room,
            wanted,
            "the process may open too few files for as many connections as are set"
        );
    }
    listener::Options {
        name,
        connections: Connections {
            in_all: wanted.min(room),
            address: listeners.max_connections_per_address as usize,
            realm: listeners
                .max_connections_per_realm
                .map_or(wanted.min(room).div_ceil(2), |realm| realm as usize),
        },
        streams: listeners.max_streams_per_connection,
        patience: patience(settings),
        keepalive: (
            given(settings.grpc.grpc_keepalive_interval),
            settings.grpc.grpc_keepalive_timeout,
        ),
        age: (None, None),
        reserve: 0,
        proxies: Proxies::new(&settings.proxies),
    }
}

fn spawn_workers(
    settings: &Worker,
    db: &Db,
    instance: String,
    traffic: &Traffic,
    topics: &Topics,
    drain: &Drain,
    workers: &mut JoinSet<()>,
) {
    let lease = Lease { owner: instance, duration: settings.lease };
    let offboarding = OffboardingExecutor::new(db.clone(), lease.clone());
    workers.spawn(jobs::run(offboarding, topics.clone(), settings.poll_interval, drain.workers()));
    let indexes = IndexExecutor::new(db.clone(), lease.clone());
    workers.spawn(jobs::run(indexes, topics.clone(), settings.poll_interval, drain.workers()));
    let options = WorkerOptions {
        chunk_size: settings.bulk_chunk_size,
        chunk_target: settings.bulk_chunk_target,
        turn: settings.bulk_turn,
        lock_patience: db.options().lock_timeout,
    };
    let steady = (0..settings.bulk_workers).map(|_| Hours::Always);
    let idle = (0..settings.bulk_idle_workers).map(|_| Hours::Quiet(traffic.clone()));
    for hours in steady.chain(idle) {
        let bulk = TaskExecutor::new(db.clone(), WORKS, lease.clone(), options, hours);
        tracing::debug!(topic = bulk.topic(), "worker starts");
        workers.spawn(jobs::run(bulk, topics.clone(), settings.poll_interval, drain.workers()));
    }
}

impl Running {
    /// Where the service is reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until it is ready for the first time.
    pub async fn is_ready(&self) {
        self.readiness.is_ready().await;
    }

    /// Ends the service in an order in which no caller notices: readiness and health turn, listeners close when their calls are done, workers
    /// stop at the end of a chunk. The database is not used any more when this returns. Returns by when all else is to be over.
    pub async fn drain(self) -> Instant {
        let (mut listeners, mut workers, mut keepers) =
            (self.listeners, self.workers, self.keepers);
        let listeners = async move { while listeners.join_next().await.is_some() {} };
        let working = async move { while workers.join_next().await.is_some() {} };
        let ends = self.drain.run(self.grace, listeners, working).await;
        self.stop_listening.cancel();
        let listening = self.listening;
        let listening = timeout_at(
            ends.min(Instant::now() + LISTENING_GRACE),
            tokio::task::spawn_blocking(move || listening.join()),
        );
        let (kept, ended) = tokio::join!(timeout_at(ends, keepers.shutdown()), listening);
        if kept.is_err() {
            tracing::warn!("what is done now and then is left in the middle");
        }
        match ended {
            Ok(Ok(Ok(()))) => {}
            Ok(_) => tracing::warn!("the listening thread did not end well"),
            Err(_) => {
                tracing::warn!("the listening thread is left behind: the database does not respond")
            }
        }
        self.admin.stop();
        ends
    }
}
