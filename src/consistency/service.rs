//! The calls of checks: starting one, and reading its findings.

use tonic::{Request, Response, Status};

use crate::access::{Caller, Once};
use crate::consistency::model::{Finding, NewCheck};
use crate::consistency::queries;
use crate::db::{Db, Page, PageSize, paged};
use crate::error::Violations;
use crate::filter::only_filter;
use crate::proto::{convert, v1};
use crate::task::answers::{check_tenant, get, no_task, parse_id};
use crate::task::{mail, mail_queries};

paged!(v1::ListTaskFindingsRequest, "TaskFindings", PageSize { default: 100, max: 1_000 });

/// `CheckConsistency`. `sends_mail` says whether there is a mail server.
pub async fn start(
    db: &Db,
    sends_mail: bool,
    request: Request<v1::CheckConsistencyRequest>,
) -> Result<Response<v1::Task>, Status> {
    let once = Once::of(&request)?;
    let caller = once.caller().clone();
    let request = request.into_inner();
    check_tenant(&request.tenant, &caller.realm)?;
    let mut faults = Violations::new();
    let recipient =
        mail::recipient(db, sends_mail, &caller, &request.send_mail, &mut faults).await?;
    let check = NewCheck::check(&request, faults)?;
    let start = move |connection: &mut diesel::PgConnection| {
        let task_id = queries::start(connection, &caller, check)?;
        if let Some(recipient) = &recipient {
            mail_queries::ask(connection, &caller.realm, task_id, recipient)?;
        }
        get(connection, &caller.realm, &task_id.to_string())
    };
    once.transaction(db, start).await
}

/// `ListTaskFindings`.
pub async fn list_findings(
    db: &Db,
    request: Request<v1::ListTaskFindingsRequest>,
) -> Result<Response<v1::ListTaskFindingsResponse>, Status> {
    let realm = Caller::of(&request)?.realm;
    let mut request = request.into_inner();
    check_tenant(&request.tenant, &realm)?;
    let id = parse_id(&request.task_id)?;
    // The same list, whether the path names the tenant or the call leaves it out.
    request.tenant.clear();
    let mut faults = Violations::new();
    let page: Page<(i32, i64)> = Page::check(db.seal().await?, &realm, &mut request, &mut faults);
    let filter = only_filter(&queries::FINDING, &request.filter, faults)?;
    let (after, limit) = (page.after().copied().unwrap_or_default(), page.limit());
    let found = db
        .run(move |connection| {
            queries::findings(connection, &realm, (id, filter.as_ref()), after, limit)
        })
        .await?;
    let mut findings = found.ok_or_else(|| no_task(&request.task_id))?;
    let next_page_token = page.cut(&mut findings, |finding| (finding.slice, finding.number))?;
    let findings = findings.into_iter().map(finding_to_proto).collect();
    Ok(Response::new(v1::ListTaskFindingsResponse { findings, next_page_token }))
}

fn finding_to_proto(finding: Finding) -> v1::TaskFinding {
    v1::TaskFinding {
        kind: finding.kind.to_string(),
        subject: finding.subject,
        detail: finding.detail,
        mended: finding.mended,
        time: Some(convert::timestamp(finding.occurred_at)),
    }
}
