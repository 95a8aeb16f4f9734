//! Databases behind a pooler: one that shares backends cannot be used.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use url::Url;

use crate::database_unfit::assert_refused;
use crate::kit::*;
use crate::probes::readiness;

/// A pooler in front of a database, stopped at the end.
struct Pooler {
    process: Child,
    pub url: String,
    folder: tempfile::TempDir,
}

impl Pooler {
    async fn start(database: &Database, mode: &str) -> Pooler {
        Pooler::start_of(database, mode, 30).await
    }

    /// One with so many sessions of the server.
    async fn start_of(database: &Database, mode: &str, sessions: u32) -> Pooler {
        let folder = tempfile::tempdir().unwrap();
        let target = Url::parse(&database.url).unwrap();
        let port = free_port();
        let (user, password) = (target.username(), target.password().unwrap());
        let host = target.host_str().unwrap().replace("%2F", "/").replace("%2f", "/");
        let settings = format!(
            "[databases]\n* = host={host} port={} user={user} password={password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = {sessions}\n",
            target.port().unwrap_or(5432)
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        // Debian keeps it off the path of ordinary users.
        let mut command = Command::new(if Path::new("/usr/sbin/pgbouncer").exists() {
            "/usr/sbin/pgbouncer"
        } else {
            "pgbouncer"
        });
        command.arg("--quiet").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        if nix::unistd::Uid::effective().is_root() {
            allow_everyone(folder.path());
            // A socket is for its owner alone.
            let owner = std::fs::metadata(&host)
                .ok()
                .filter(|_| host.starts_with('/'))
                .map(|socket| socket.uid());
            let owner = owner
                .and_then(|uid| {
                    nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).unwrap()
                })
                .map(|user| user.name);
            command.args(["--user", owner.as_deref().unwrap_or("nobody")]);
        }
        let mut process = command.spawn().expect("`script/bootstrap test` installs pgbouncer");
        for _ in 0..1500 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                let url =
                    format!("postgresql://{user}:{password}@127.0.0.1:{port}{}", target.path());
                return Pooler { process, url, folder };
            }
            assert!(process.try_wait().unwrap().is_none(), "pgbouncer ended");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("pgbouncer does not start");
    }
}

impl Pooler {
    /// Changes the mode while sessions are open.
    fn turn(&self, from: &str, to: &str) {
        let file = self.folder.path().join("pgbouncer.ini");
        let settings = std::fs::read_to_string(&file)
            .unwrap()
            .replace(&format!("pool_mode = {from}"), &format!("pool_mode = {to}"));
        std::fs::write(&file, settings).unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.process.id().cast_signed()),
            nix::sys::signal::Signal::SIGHUP,
        )
        .unwrap();
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn allow_everyone(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_pooler_that_shares_backends_is_refused_and_one_that_does_not_is_fine() {
    let database = database().await;
    let key = Key::create(&database, "acme", "test", SCOPES);
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&database, mode).await;
        for command in [
            &[
                "serve",
                "--http-addr=127.0.0.1:0",
                "--grpc-addr=127.0.0.1:0",
                "--admin-addr=127.0.0.1:0",
            ] as &[&str],
            &["migrate"],
            &["key", "list"],
        ] {
            assert_refused(
                &[command, &["--database-url", &pooler.url]].concat(),
                "a pooler that shares backends",
            );
        }
    }
    let pooler = Pooler::start(&database, "session").await;
    assert_eq!(
        offboard(&["migrate", "--database-url", &pooler.url]),
        "The schema is up to date.\n"
    );
    let server = Server::start_on(&pooler.url, &[], &[]).await;
    readiness(&server, 200).await;
    let client = Client::new(&server, &key, Protocol::Rest);
    for n in 0..20 {
        client
            .call(
                "EntityService/CreateEntity",
                json!({"entity": {"entity_id": format!("e{n}"), "type": "test"}}),
            )
            .await
            .unwrap();
    }
    drop(server);
}

#[tokio::test]
async fn a_pooler_that_begins_to_share_backends_is_found_by_a_running_server() {
    let database = database().await;
    let key = Key::create(&database, "acme", "test", SCOPES);
    let pooler = Pooler::start_of(&database, "session", 12).await;
    let server = Server::start_on(&pooler.url, &["--poll-interval=0.1"], &[]).await;
    readiness(&server, 200).await;
    let client = Client::new(&server, &key, Protocol::Rest);
    pooler.turn("session", "transaction");
    let mut refused = std::collections::BTreeSet::new();
    let mut unfit = false;
    for round in 0..40 {
        let creates = (0..12).map(|n| {
            let entity = json!({"entity": {"entity_id": format!("e{round}.{n}"), "type": "test", "attributes": {"n": n}}});
            let client = client.clone();
            async move { client.call("EntityService/CreateEntity", entity).await }
        });
        // Sessions are given back to the pooler, and it gives others.
        let ends = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'offboard'";
        if round % 10 == 5 {
            database.count(ends);
        }
        refused.extend(
            futures::future::join_all(creates)
                .await
                .into_iter()
                .filter_map(|created| created.err()?.http),
        );
        let reported = crate::probes::probe(&server, "/readyz").await.text();
        unfit = reported.contains("database_unfit");
        if unfit {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(unfit, "{}", crate::probes::probe(&server, "/readyz").await.text());
    assert!(refused.iter().all(|status| *status == 503), "{refused:?}");
    let failed =
        client.call("EntityService/GetEntity", json!({"entity_id": "e0.0"})).await.unwrap_err();
    assert_eq!(failed.http, Some(503), "nothing is done meanwhile");
    pooler.turn("transaction", "session");
    readiness(&server, 200).await;
    client
        .call(
            "EntityService/CreateEntity",
            json!({"entity": {"entity_id": "again", "type": "test"}}),
        )
        .await
        .unwrap();
}
