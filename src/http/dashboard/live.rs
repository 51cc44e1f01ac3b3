//! Parts of pages that are kept up to date: server-sent events, each with one part as HTML.
//!
//! Only what has changed is sent. The viewer's session is looked at each time, so whoever may not look any more stops
//! seeing; the stream ends by itself after some minutes, when the browser asks anew.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use poem::{Body, Response};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::{MakeParts, Viewer};

/// How often the parts are made.
const EVERY: Duration = Duration::from_secs(2);
/// How often a stream looks whether the process is stopping.
const LOOK: Duration = Duration::from_millis(200);
/// How long a stream lasts.
const LONGEST: Duration = Duration::from_secs(300);
/// After how long something is sent where nothing changes, so that proxies keep the connection.
const QUIET: Duration = Duration::from_secs(15);

struct Watch {
    viewer: Viewer,
    fragments: MakeParts,
    sent: HashMap<&'static str, u64>,
    began: Instant,
    spoke: Instant,
    first: bool,
    over: bool,
    _place: OwnedSemaphorePermit,
}

/// The stream of a page's parts.
pub fn stream(viewer: Viewer, fragments: MakeParts) -> Response {
    let Ok(place) = viewer.dashboard.live_places.clone().try_acquire_owned() else {
        // The browser keeps the page as it is, and asks again later.
        return Response::builder()
            .status(StatusCode::SERVICE_UNAVAILABLE)
            .header("retry-after", "30")
            .finish();
    };
    let now = Instant::now();
    let watch = Watch {
        viewer,
        fragments,
        sent: HashMap::new(),
        began: now,
        spoke: now,
        first: true,
        over: false,
        _place: place,
    };
    let events = stream::unfold(watch, |mut watch| async move {
        let bytes = watch.next().await?;
        Some((Ok::<_, Infallible>(bytes), watch))
    });
    let events = futures_util::StreamExt::map(events, |bytes| bytes.map_err(|never| match never {}));
    Response::builder()
        .content_type("text/event-stream")
        .header("x-accel-buffering", "no")
        .body(Body::from_bytes_stream::<_, Bytes, std::io::Error>(events))
}

impl Watch {
    /// What is sent next; `None`: the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        if std::mem::take(&mut self.first) {
            // What the browser waits before it asks again.
            return Some(Bytes::from_static(b"retry: 3000\n\n"));
        }
        loop {
            let due = Instant::now() + EVERY;
            while Instant::now() < due {
                if self.viewer.dashboard.stopping.load(Ordering::Acquire) || self.began.elapsed() > LONGEST {
                    return None;
                }
                tokio::time::sleep(LOOK).await;
            }
            let Ok(caller) = self.viewer.caller.again().await else {
                self.over = true;
                return Some(Bytes::from_static(b"event: over\ndata: \n\n"));
            };
            self.viewer.caller = caller;
            // What cannot be found out now may be at the next turn.
            let made = (self.fragments)(self.viewer.clone()).await.unwrap_or_default();
            let mut text = String::new();
            for (name, markup) in made {
                let html = markup.into_string();
                let mut hasher = DefaultHasher::new();
                html.hash(&mut hasher);
                if self.sent.insert(name, hasher.finish()) != Some(hasher.finish()) {
                    text.push_str(&event(name, &html));
                }
            }
            if text.is_empty() && self.spoke.elapsed() < QUIET {
                continue;
            }
            if text.is_empty() {
                text.push_str(": nothing new\n\n");
            }
            self.spoke = Instant::now();
            return Some(text.into());
        }
    }
}

/// An event whose data is some lines.
fn event(name: &str, html: &str) -> String {
    let mut text = format!("event: {name}\n");
    for line in html.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_break_in_a_part_does_not_end_its_event() {
        assert_eq!(
            super::event("a", "<b>\n\nx"),
            "event: a\ndata: <b>\ndata: \ndata: x\n\n"
        );
    }
}
