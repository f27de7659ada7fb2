//! Requests to the server: bounded in number, counted, and with the driver's errors as ours.

use crate::error;
use chaski_ports::PortError;
use futures::{StreamExt, stream};
use scylla::{
    client::session::Session,
    deserialize::row::DeserializeRow,
    response::{PagingState, query_result::QueryResult},
    serialize::row::SerializeRow,
    statement::{
        batch::{Batch, BatchStatement, BatchType},
        prepared::PreparedStatement,
    },
};
use std::ops::ControlFlow;
use tokio::{sync::Semaphore, time::Instant};

/// How many writes of a process are on their way at once; further ones wait (L8).
pub(crate) const WRITES_IN_FLIGHT: usize = 64;

pub(crate) struct Db {
    session: Session,
    writes: Semaphore,
}

impl Db {
    pub(crate) fn new(session: Session) -> Self {
        Self { session, writes: Semaphore::new(WRITES_IN_FLIGHT) }
    }

    /// One plain write or lightweight transaction.
    pub(crate) async fn write(
        &self,
        op: &'static str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryResult, PortError> {
        let _permit = self.permit().await;
        let begun = Instant::now();
        let result = self.session.execute_unpaged(statement, values).await;
        observe(op, begun, result.map_err(|e| error::write_failed(op, e)))
    }

    /// Rows of one CQL partition as one request, by the same statement.
    pub(crate) async fn write_together<V: SerializeRow>(
        &self,
        op: &'static str,
        statement: &PreparedStatement,
        rows: &[V],
    ) -> Result<(), PortError> {
        if let [single] = rows {
            self.write(op, statement, single).await?;
            return Ok(());
        }
        let same = || BatchStatement::from(statement.clone());
        let statements = std::iter::repeat_with(same).take(rows.len()).collect();
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        let _permit = self.permit().await;
        let begun = Instant::now();
        let result = self.session.batch(&batch, rows).await;
        observe(op, begun, result.map_err(|e| error::write_failed(op, e)))?;
        Ok(())
    }

    /// Two writes of one partition key as one request.
    pub(crate) async fn write_pair<A: SerializeRow, B: SerializeRow>(
        &self,
        op: &'static str,
        statements: [&PreparedStatement; 2],
        values: (A, B),
    ) -> Result<(), PortError> {
        let statements = statements.map(|one| BatchStatement::from(one.clone())).to_vec();
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        let _permit = self.permit().await;
        let begun = Instant::now();
        let result = self.session.batch(&batch, values).await;
        observe(op, begun, result.map_err(|e| error::write_failed(op, e)))?;
        Ok(())
    }

    /// At most `limit` rows, page by page.
    pub(crate) async fn rows<R>(
        &self,
        op: &'static str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        limit: usize,
    ) -> Result<Vec<R>, PortError>
    where
        R: for<'frame> DeserializeRow<'frame, 'frame>,
    {
        let mut out = Vec::new();
        let mut page = Some(PagingState::start());
        while let Some(state) = page {
            let (rows, next) = self.page(op, statement, &values, state).await?;
            out.extend(rows);
            page = next.filter(|_| out.len() < limit);
        }
        out.truncate(limit);
        Ok(out)
    }

    /// One page of rows, and where to go on.
    pub(crate) async fn page<R>(
        &self,
        op: &'static str,
        statement: &PreparedStatement,
        values: impl SerializeRow,
        state: PagingState,
    ) -> Result<(Vec<R>, Option<PagingState>), PortError>
    where
        R: for<'frame> DeserializeRow<'frame, 'frame>,
    {
        let begun = Instant::now();
        let result = self.session.execute_single_page(statement, values, state).await;
        let (result, next) = observe(op, begun, result.map_err(|e| error::read_failed(op, e)))?;
        let rows = result
            .into_rows_result()
            .map_err(|e| error::corrupt(op, e))?
            .rows::<R>()
            .map_err(|e| error::corrupt(op, e))?
            .collect::<Result<Vec<R>, _>>()
            .map_err(|e| error::corrupt(op, e))?;
        let next = match next.into_paging_control_flow() {
            ControlFlow::Continue(state) => Some(state),
            ControlFlow::Break(()) => None,
        };
        Ok((rows, next))
    }

    async fn permit(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.writes.acquire().await.expect("the semaphore is never closed")
    }
}

/// Awaits all writes, so many at once, and gives the first error, if any, when all are settled.
pub(crate) async fn settle<T>(
    writes: Vec<impl Future<Output = Result<T, PortError>>>,
    at_once: usize,
) -> Result<(), PortError> {
    let mut settled = stream::iter(writes).buffer_unordered(at_once);
    let mut outcome = Ok(());
    while let Some(result) = settled.next().await {
        outcome = outcome.and(result.map(drop));
    }
    outcome
}

fn observe<T>(
    op: &'static str,
    begun: Instant,
    result: Result<T, PortError>,
) -> Result<T, PortError> {
    metrics::histogram!("chaski_store_request_seconds", "op" => op)
        .record(begun.elapsed().as_secs_f64());
    if let Err(e) = &result {
        let kind = format!("{:?}", e.kind);
        metrics::counter!("chaski_store_errors_total", "op" => op, "kind" => kind).increment(1);
    }
    result
}
