//! The schema: versioned migrations, applied once and in order, by one process at a time.
//!
//! `schema_migrations` is written by lightweight transactions only. Its row 0 is the lock of whoever
//! is migrating; it expires, so a killed migration blocks the next one for a minute at most.

use crate::{checkpoints::applied, error, invalid, options::CqlOptions};
use chaski_ports::{ErrorKind, PortError};
use scylla::{
    client::session::Session,
    response::query_result::QueryResult,
    serialize::row::SerializeRow,
    statement::{Consistency, Statement},
};
use std::time::Duration;
use uuid::Uuid;

struct Migration {
    name: &'static str,
    text: &'static str,
}

macro_rules! migrations {
    ($($name:literal,)*) => {
        [$(Migration {
            name: $name,
            text: include_str!(concat!("../../../infra/scylla/schema/", $name, ".cql")),
        },)*]
    };
}

/// All migrations; the n-th (from 1) has version n. Only ever appended to.
static MIGRATIONS: [Migration; 5] = migrations![
    "0001_messages",
    "0002_devices",
    "0003_checkpoints",
    "0004_connections",
    "0005_ownership",
];

const LATEST: i32 = MIGRATIONS.len() as i32;
/// The version of the row that is the lock.
const LOCK: i32 = 0;
/// How long a lock lives without being renewed; longer than a statement may take.
const LOCK_TTL_S: i32 = 90;
/// How long a statement that changes the schema may take.
const DDL_TIMEOUT: Duration = Duration::from_secs(60);
const LOCK_PAUSE: Duration = Duration::from_millis(300);
const LOCK_TRIES: u32 = 600;

/// Refuses a schema that is not the one this program was built with.
pub(crate) async fn check_version(session: &Session, keyspace: &str) -> Result<(), PortError> {
    let version = if has_table(session, keyspace, "schema_migrations").await? {
        let rows = versions(session, keyspace).await?;
        rows.into_iter().max().unwrap_or(LOCK)
    } else {
        LOCK
    };
    match version {
        LATEST => Ok(()),
        older if older < LATEST => Err(invalid(format!(
            "keyspace {keyspace} has schema version {older}, this program needs {LATEST}: run chaski migrate"
        ))),
        newer => Err(too_new(keyspace, newer)),
    }
}

fn too_new(keyspace: &str, newer: i32) -> PortError {
    invalid(format!(
        "keyspace {keyspace} has schema version {newer}, this program knows only {LATEST}: it is older \
         than the one that last ran chaski migrate; run a newer chaski"
    ))
}

/// Applies what is missing and gives the names.
pub(crate) async fn migrate(options: &CqlOptions) -> Result<Vec<String>, PortError> {
    let keyspace = &options.keyspace;
    let session = options.session().await?;
    create_keyspace(&session, options).await?;
    // Asked for even if it is listed: a table that another migration is making is listed before it can be
    // used, and this waits until it can.
    let text = format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.schema_migrations \
         (version int PRIMARY KEY, name text, owner uuid)"
    );
    ddl(&session, "create schema_migrations", text).await?;
    let agreed = session.await_schema_agreement().await;
    agreed.map_err(|e| unavailable("wait until all nodes have the schema", e))?;
    let used = session.use_keyspace(keyspace, false).await;
    used.map_err(|e| unavailable("use the keyspace", e))?;
    if is_current(keyspace, &versions(&session, keyspace).await?)? {
        return Ok(Vec::new());
    }
    let owner = Uuid::new_v4();
    lock(&session, owner).await?;
    let outcome = apply_missing(&session, keyspace, owner).await;
    let text = "DELETE FROM schema_migrations WHERE version = ? IF owner = ?";
    let unlocked = run(&session, text, (LOCK, owner)).await;
    let names = outcome?;
    if let Err(error) = unlocked {
        tracing::warn!(%error, "migration lock not released, it expires by itself");
    }
    Ok(names)
}

fn is_current(keyspace: &str, versions: &[i32]) -> Result<bool, PortError> {
    match versions.iter().max() {
        Some(newest) if *newest > LATEST => Err(too_new(keyspace, *newest)),
        _ => Ok((1..=LATEST).all(|v| versions.contains(&v))),
    }
}

async fn apply_missing(
    session: &Session,
    keyspace: &str,
    owner: Uuid,
) -> Result<Vec<String>, PortError> {
    let done = versions(session, keyspace).await?;
    is_current(keyspace, &done)?;
    let mut names = Vec::new();
    for (version, migration) in (1..).zip(&MIGRATIONS) {
        if done.contains(&version) {
            continue;
        }
        // Statements are repeatable (IF NOT EXISTS): a migration that was cut short is done again.
        for statement in statements(migration.text) {
            renew(session, owner).await?;
            ddl(session, migration.name, statement).await?;
        }
        let text =
            "INSERT INTO schema_migrations (version, name, owner) VALUES (?, ?, ?) IF NOT EXISTS";
        run(session, text, (version, migration.name, owner)).await?;
        tracing::info!(migration = migration.name, keyspace, "migration applied");
        names.push(migration.name.to_owned());
    }
    Ok(names)
}

async fn lock(session: &Session, owner: Uuid) -> Result<(), PortError> {
    let text = format!(
        "INSERT INTO schema_migrations (version, name, owner) VALUES (?, 'lock', ?) \
         IF NOT EXISTS USING TTL {LOCK_TTL_S}"
    );
    for _ in 0..LOCK_TRIES {
        if applied(run(session, &text, (LOCK, owner)).await?)? {
            return Ok(());
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Err(PortError::new(
        ErrorKind::Conflict,
        "another chaski migrate holds the lock (row 0 of schema_migrations) and does not end",
    ))
}

async fn renew(session: &Session, owner: Uuid) -> Result<(), PortError> {
    let text = format!(
        "UPDATE schema_migrations USING TTL {LOCK_TTL_S} SET name = 'lock', owner = ? \
         WHERE version = ? IF owner = ?"
    );
    if applied(run(session, &text, (owner, LOCK, owner)).await?)? {
        return Ok(());
    }
    Err(PortError::new(
        ErrorKind::Conflict,
        "the migration lock was lost to another chaski migrate: run it again",
    ))
}

/// The applied versions.
async fn versions(session: &Session, keyspace: &str) -> Result<Vec<i32>, PortError> {
    let text = format!("SELECT version FROM {keyspace}.schema_migrations");
    let rows: Vec<(i32,)> = select(session, Statement::new(text), ()).await?;
    Ok(rows.into_iter().map(|(v,)| v).filter(|v| *v != LOCK).collect())
}

async fn has_table(session: &Session, keyspace: &str, table: &str) -> Result<bool, PortError> {
    let text =
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?";
    let mut statement = Statement::new(text);
    statement.set_consistency(Consistency::One);
    let rows: Vec<(String,)> = select(session, statement, (keyspace, table)).await?;
    Ok(!rows.is_empty())
}

async fn create_keyspace(session: &Session, options: &CqlOptions) -> Result<(), PortError> {
    let keyspace = &options.keyspace;
    let mut exists =
        Statement::new("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?");
    exists.set_consistency(Consistency::One);
    let found: Vec<(String,)> = select(session, exists, (keyspace,)).await?;
    if !found.is_empty() {
        return Ok(());
    }
    let mut local = Statement::new("SELECT data_center FROM system.local");
    local.set_consistency(Consistency::One);
    let local: Vec<(String,)> = select(session, local, ()).await?;
    let datacenter = options.datacenter.as_ref().or(local.first().map(|(dc,)| dc));
    let datacenter = datacenter.ok_or_else(|| error::corrupt("system.local", "no row"))?;
    let text = keyspace_statement(options, datacenter, is_scylla(session).await?);
    ddl(session, "create keyspace", text).await
}

/// The only statement that differs between the vendors.
fn keyspace_statement(options: &CqlOptions, datacenter: &str, scylla: bool) -> String {
    let (keyspace, replication) = (&options.keyspace, options.replication);
    let datacenter = datacenter.replace('\'', "''");
    // Lightweight transactions do not work on tablets in every version of ScyllaDB.
    let tablets = if scylla { " AND tablets = {'enabled': false}" } else { "" };
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', '{datacenter}': {replication}}} \
         AND durable_writes = true{tablets}"
    )
}

/// ScyllaDB tells its shards at the handshake, and has a table of its own; `release_version` says
/// "3.0.8" there, as of a Cassandra.
async fn is_scylla(session: &Session) -> Result<bool, PortError> {
    let cluster = session.get_cluster_state();
    let sharded = cluster.get_nodes_info().iter().any(|n| n.sharder().is_some());
    Ok(sharded || has_table(session, "system", "scylla_local").await?)
}

/// The statements of a migration: without comments, cut at semicolons.
fn statements(text: &'static str) -> impl Iterator<Item = String> {
    let code: Vec<&str> =
        text.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code)).collect();
    let code = code.join("\n");
    let statements: Vec<String> = code.split(';').map(|s| s.trim().to_owned()).collect();
    statements.into_iter().filter(|s| !s.is_empty())
}

fn unavailable(what: &str, error: impl Into<error::Vendor>) -> PortError {
    PortError::new(ErrorKind::Unavailable, format!("migrate: {what}")).caused_by(error)
}

async fn ddl(session: &Session, what: &str, text: String) -> Result<(), PortError> {
    let mut statement = Statement::new(text);
    statement.set_request_timeout(Some(DDL_TIMEOUT));
    session.query_unpaged(statement, ()).await.map_err(|e| {
        let mut failed = error::write_failed("migrate", e);
        failed.context = format!("migrate: {what}");
        failed
    })?;
    Ok(())
}

async fn run(
    session: &Session,
    text: &str,
    values: impl SerializeRow,
) -> Result<QueryResult, PortError> {
    let result = session.query_unpaged(text, values).await;
    result.map_err(|e| error::write_failed("schema_migrations", e))
}

async fn select<R>(
    session: &Session,
    statement: Statement,
    values: impl SerializeRow,
) -> Result<Vec<R>, PortError>
where
    R: for<'f> scylla::deserialize::row::DeserializeRow<'f, 'f>,
{
    let result = session.query_unpaged(statement, values).await;
    let result = result.map_err(|e| error::read_failed("schema", e))?;
    let rows = result.into_rows_result().map_err(|e| error::corrupt("schema", e))?;
    let rows = rows.rows::<R>().map_err(|e| error::corrupt("schema", e))?;
    rows.collect::<Result<_, _>>().map_err(|e| error::corrupt("schema", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_and_made_of_repeatable_statements() {
        for (version, migration) in (1..).zip(&MIGRATIONS) {
            let number = format!("{version:04}_");
            assert!(migration.name.starts_with(&number), "{}", migration.name);
            assert!(statements(migration.text).count() > 0);
            for statement in statements(migration.text) {
                assert!(statement.starts_with("CREATE TABLE IF NOT EXISTS "), "{statement}");
            }
        }
        let tables: usize = MIGRATIONS.iter().map(|m| statements(m.text).count()).sum();
        assert_eq!(tables, 19);
    }

    #[test]
    fn only_scylla_is_told_of_tablets() {
        let options = CqlOptions::default();
        let cassandra = keyspace_statement(&options, "dc'1", false);
        assert_eq!(
            cassandra,
            "CREATE KEYSPACE IF NOT EXISTS chaski WITH replication = \
             {'class': 'NetworkTopologyStrategy', 'dc''1': 1} AND durable_writes = true"
        );
        let scylla = keyspace_statement(&options, "dc'1", true);
        assert_eq!(scylla, format!("{cassandra} AND tablets = {{'enabled': false}}"));
    }

    #[test]
    fn a_newer_schema_is_refused() {
        assert!(!is_current("k", &[1]).unwrap());
        assert!(is_current("k", &(1..=LATEST).collect::<Vec<_>>()).unwrap());
        let error = is_current("k", &[LATEST + 1]).unwrap_err();
        assert!(error.to_string().contains("newer"), "{error}");
    }
}
