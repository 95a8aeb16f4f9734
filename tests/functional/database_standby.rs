//! A standby, and what becomes of it when it takes over.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};

use crate::kit::*;
use crate::probes::readiness;

/// A cluster of its own, stopped at the end.
struct Cluster {
    folder: PathBuf,
    port: u16,
}

/// The newest Postgres of this machine.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|folder| folder.join("initdb").exists());
    versions
        .filter(|folder| folder.join("initdb").exists())
        .max()
        .or_else(|| on_path.last())
        .expect("`script/bootstrap` installs Postgres")
}

/// Runs one of Postgres' programs as somebody who is not root.
fn postgres(program: &str, arguments: &[&dyn AsRef<OsStr>]) {
    let mut command = Command::new(binaries().join(program));
    command
        .args(arguments.iter().map(AsRef::as_ref))
        .current_dir("/")
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    // Not a pipe, which a postmaster would keep open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    if nix::unistd::Uid::effective().is_root() {
        let user = nobody();
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    assert!(command.status().unwrap().success(), "{program} failed");
}

fn nobody() -> nix::unistd::User {
    let found = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| nix::unistd::User::from_name(name).unwrap());
    found.expect("Postgres does not run as root")
}

impl Cluster {
    fn at(folder: PathBuf) -> Cluster {
        let port = free_port();
        Cluster { folder, port }
    }

    fn start(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off",
            self.port
        );
        postgres(
            "pg_ctl",
            &[
                &"start",
                &"-w",
                &"-D",
                &self.folder,
                &"-o",
                &options,
                &"-l",
                &self.folder.with_extension("log"),
            ],
        );
    }

    fn url(&self, database: &str) -> String {
        format!("postgresql://offboard@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        postgres("pg_ctl", &[&"stop", &"-w", &"-m", &"immediate", &"-D", &self.folder]);
    }
}

fn give(folder: &Path) {
    if nix::unistd::Uid::effective().is_root() {
        let user = nobody();
        std::os::unix::fs::chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
}

#[tokio::test]
async fn a_standby_is_known_and_takes_changes_once_it_is_promoted() {
    let folder = tempfile::tempdir().unwrap();
    give(folder.path());
    let primary = Cluster::at(folder.path().join("primary"));
    postgres(
        "initdb",
        &[
            &"-D",
            &primary.folder,
            &"-U",
            &"offboard",
            &"--auth=trust",
            &"--encoding=UTF8",
            &"--no-locale",
            &"--no-sync",
        ],
    );
    primary.start();
    PgConnection::establish(&primary.url("postgres"))
        .unwrap()
        .batch_execute("CREATE DATABASE offboard")
        .unwrap();
    let url = primary.url("offboard");
    offboard(&["migrate", "--database-url", &url]);
    let created = offboard(&[
        "key",
        "create",
        "--database-url",
        &url,
        "--org",
        "acme",
        "--scope",
        &SCOPES.join(","),
        "--json",
    ]);
    let created: Value = serde_json::from_str(&created).unwrap();
    let text = |name: &str| created[name].as_str().unwrap().to_owned();
    let key = Key { id: text("id"), secret: text("secret"), org: "acme".to_owned() };

    let standby = Cluster::at(folder.path().join("standby"));
    let line = format!("host=127.0.0.1 port={} user=offboard", primary.port);
    postgres(
        "pg_basebackup",
        &[&"-d", &line, &"-D", &standby.folder, &"-R", &"-X", &"stream", &"--checkpoint=fast"],
    );
    standby.start();
    let url = standby.url("offboard");
    let server = Server::start_on(&url, &[], &[]).await;
    let reported = readiness(&server, 200).await;
    assert!(
        reported.to_string().contains("a standby: reads are served, changes are refused"),
        "{reported}"
    );
    let (rest, grpc) =
        (Client::new(&server, &key, Protocol::Rest), Client::new(&server, &key, Protocol::Grpc));
    for client in [&rest, &grpc] {
        client.call("PortfolioService/ListPortfolios", json!({})).await.unwrap();
        let missing =
            client.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap_err();
        assert_eq!(missing.code, "not_found");
        let refused = client
            .call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}}))
            .await
            .unwrap_err();
        assert_eq!(refused.code, "unavailable", "{refused:?}");
    }
    let ended = run(&["migrate", "--database-url", &url]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(0), "The schema is up to date.\n"),
        "{ended:?}"
    );

    postgres("pg_ctl", &[&"promote", &"-w", &"-D", &standby.folder]);
    rest.call("EntityService/CreateEntity", json!({"entity": {"entity_id": "e", "type": "T"}}))
        .await
        .unwrap();
    grpc.call("EntityService/GetEntity", json!({"entity_id": "e"})).await.unwrap();
    for _ in 0..1500 {
        if !readiness(&server, 200).await.to_string().contains("standby") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it is called a standby for ever");
}
