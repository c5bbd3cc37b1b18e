//! The page to look at while a campaign opens.

use std::{convert::Infallible, sync::Arc, time::Duration};

use askama::Template;
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use dibs_common::{error::Error, live::ProcessKind};
use futures::{Stream, StreamExt as _, stream};
use tokio::{sync::watch, time::timeout};

use super::{
    charts,
    forms::QueryFields,
    guard::Visit,
    hub::{Frame, View},
    page::{Failure, PageResult, Shell, render},
    session::Session,
    snapshot::{LiveCampaign, Snapshot},
    words::Words,
};

/// Nothing to say for so long: a comment keeps proxies from closing the stream.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How many events pass until Redis is asked whether the session was ended elsewhere.
const CHECK_EVERY: u32 = 15;

/// The part that moves.
#[derive(Template)]
#[template(path = "now_live.html")]
pub struct NowLive<'p> {
    pub s: &'p Words,
    pub n: &'p Snapshot,
}

impl NowLive<'_> {
    fn remaining_bar(&self, campaign: &LiveCampaign) -> String {
        charts::bar(campaign.remaining, campaign.capacity, "remaining")
    }

    fn sparkline(&self, campaign: &LiveCampaign) -> String {
        sparkline(campaign)
    }

    fn count(&self, kind: &str) -> usize {
        self.n.count(if kind == "api" { ProcessKind::Api } else { ProcessKind::Worker })
    }
}

/// Accepted, refused and confirmed claims over a quarter of an hour.
pub fn sparkline(campaign: &LiveCampaign) -> String {
    let series = |count: fn(&dibs_common::live::Rates) -> u64| campaign.points.iter().map(count).collect::<Vec<u64>>();
    let (accepted, confirmed) = (series(|rates| rates.accepted), series(|rates| rates.confirmed));
    // Refused claims may be a hundred times as many: on one scale, nothing else would be seen.
    format!(
        "{}{}",
        charts::lines(&[("accepted", accepted), ("confirmed", confirmed)]),
        charts::lines(&[("refused", series(|rates| rates.refused))])
    )
}

#[derive(Template)]
#[template(path = "now.html")]
struct NowPage<'p> {
    s: &'p Shell,
    live: String,
}

pub async fn show(visit: Visit) -> PageResult {
    let shell = visit.shell("now");
    let frame = match visit.console.app.hub.current().await {
        Ok(frame) => frame,
        Err(error) => return Err(Failure(shell, error.into())),
    };
    let words = Words { now: frame.snapshot.at, ..visit.words };
    let live = NowLive { s: &words, n: &frame.snapshot }.render();
    let live = match live {
        Ok(live) => live,
        Err(error) => return Err(Failure(shell, Error::internal(error).into())),
    };
    Ok(render(&NowPage { s: &shell, live }))
}

/// A stream of server-sent events, one a second, until the page is left, the session ends or the process stops.
pub async fn events(visit: Visit, QueryFields(query): QueryFields) -> PageResult {
    let shell = visit.shell("");
    let (app, view) = (&visit.console.app, if query.text("view") == "delivery" { View::Delivery } else { View::Now });
    let Some(place) = app.hub.place() else { return Err(Failure(shell, Error::Overloaded.into())) };
    let Some(session) = visit.session.clone() else {
        return Err(Failure(shell, Error::internal("events without a session").into()));
    };
    let watching = Watching { frames: app.hub.watch(), visit: visit.clone(), session, view, sent: 0 };
    let stopping = app.supervisor.clone();
    let ended = async move {
        tokio::select! {
            () = stopping.draining.cancelled() => {}
            () = stopping.stopping.cancelled() => {}
        }
    };
    let events = watching.events().take_until(Box::pin(ended)).map(move |event| {
        // The place is free when the stream is dropped.
        let _taken = &place;
        Ok::<Bytes, Infallible>(event)
    });
    let mut response: Response = Body::from_stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Proxies that gather responses would hold the events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Watching {
    frames: watch::Receiver<Option<Arc<Frame>>>,
    visit: Visit,
    session: Arc<Session>,
    view: View,
    sent: u32,
}

impl Watching {
    fn events(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut watching| async move {
            let event = watching.next().await?;
            Some((event, watching))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        let sessions = &self.visit.console.app.sessions;
        self.sent += 1;
        let is_known = !self.sent.is_multiple_of(CHECK_EVERY) || sessions.is_known(&self.session).await;
        if !sessions.counts(&self.session) || !is_known {
            return None;
        }
        match timeout(KEEP_ALIVE, self.frames.changed()).await {
            Ok(Ok(())) => {
                let frame = self.frames.borrow_and_update().clone();
                Some(frame.map_or_else(keep_alive, |frame| frame.event(self.view, self.visit.words.language)))
            }
            Ok(Err(_)) => None,
            Err(_) => Some(keep_alive()),
        }
    }
}

fn keep_alive() -> Bytes {
    Bytes::from_static(b": nothing new\n\n")
}
