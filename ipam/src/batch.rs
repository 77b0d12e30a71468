//! Several operations in one commit (decision 26).

use crate::assign::{self, assign};
use crate::commit::{MAX_BYTES, MAX_WRITES, writes};
use crate::draft::{Draft, Step};
use crate::earlier::take_back;
use crate::env::{Env, ready};
use crate::error::IpamError;
use crate::release::release;
use crate::request::{Answer, BatchItem, Context};
use model::affinity::handle_key;
use model::keys;
use model::store::{Missing, Plan, Query, Stop, View, Write};
use std::collections::BTreeSet;

type Answers = Vec<Result<Answer, IpamError>>;

/// Plans as many of the items, from the first on, as one commit takes; the others are deferred.
pub(crate) fn plan(view: &View, cx: &Context, items: &[BatchItem]) -> Step<Plan<Answers>> {
    view.require(items.iter().flat_map(|item| queries(cx, item)).collect::<BTreeSet<_>>())?;
    let mut count = items.len();
    loop {
        let (writes, mut answers) = plan_all(view, cx, &items[..count])?;
        if count > 1 && too_large(&writes) {
            count /= 2;
            continue;
        }
        answers.resize(items.len(), Ok(Answer::Deferred));
        return Ok(if writes.is_empty() { Plan::Done(answers) } else { Plan::Commit(writes, answers) });
    }
}

fn too_large(writes: &[Write]) -> bool {
    let bytes: usize = writes.iter().filter_map(|write| write.value.as_ref()).map(Vec::len).sum();
    writes.len() > MAX_WRITES || bytes > MAX_BYTES
}

fn queries(cx: &Context, item: &BatchItem) -> Vec<Query> {
    match item {
        BatchItem::Assign(request) => assign::queries(cx, request),
        BatchItem::Release(request) => {
            vec![Query::Get(keys::cluster_information()), Query::Get(handle_key(cx.scope, &request.handle))]
        }
    }
}

/// Plans the items one after the other on one draft. What any of them must still know is asked
/// for together.
fn plan_all(view: &View, cx: &Context, items: &[BatchItem]) -> Step<(Vec<Write>, Answers)> {
    let mut draft = Draft::new(view, cx);
    let mut env = None;
    let mut answers = Vec::with_capacity(items.len());
    let mut needs = BTreeSet::new();
    for item in items {
        match plan_one(&mut draft, cx, item, &mut env) {
            Ok(answer) => {
                draft.keep();
                answers.push(Ok(answer));
            }
            Err(stop) => {
                draft.rollback();
                match stop {
                    Stop::Need(queries) => needs.extend(queries),
                    Stop::Fail(error) => answers.push(Err(error)),
                }
            }
        }
    }
    if !needs.is_empty() {
        return Err(Missing(needs.into_iter().collect()).into());
    }
    take_back(&mut draft, cx)?;
    Ok((writes(&draft, cx), answers))
}

fn plan_one<'a>(
    draft: &mut Draft,
    cx: &'a Context,
    item: &BatchItem,
    env: &mut Option<Env<'a>>,
) -> Step<Answer> {
    match item {
        BatchItem::Assign(request) => {
            let env = match env {
                Some(env) => env,
                None => env.insert(Env::load(draft.view, cx)?),
            };
            assign(draft, env, request).map(Answer::Assigned)
        }
        BatchItem::Release(request) => {
            ready(draft.view)?;
            release(draft, cx, request).map(Answer::Released)
        }
    }
}
