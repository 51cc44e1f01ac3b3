//! Claims about streams that break in our own hands.

use futures_util::StreamExt as _;

use super::*;
use crate::chat::estimate::TextTally;
use crate::domain::usage::TokenUsage;
use crate::pipeline::testing::{deployment, meter, pipeline, records};

/// Breaks at the first bytes it gets, and whenever it is asked something from then on.
struct Broken {
    fed: bool,
}

impl Decoder for Broken {
    fn feed(&mut self, _bytes: Bytes, _out: &mut Relayed) -> Result<(), Failure> {
        self.fed = true;
        panic!("as the test wants it")
    }

    fn end(&mut self, _out: &mut Relayed) -> Result<(), Failure> {
        unreachable!("the stream never gets there")
    }

    fn is_complete(&self) -> bool {
        assert!(!self.fed, "it is broken");
        false
    }

    fn usage(&self) -> Option<TokenUsage> {
        assert!(!self.fed, "it is broken");
        None
    }

    fn generated(&self) -> TextTally {
        TextTally::default()
    }
}

#[tokio::test]
async fn a_panic_in_a_stream_is_told_counted_and_settled_once() {
    let pipeline = pipeline();
    let deployment = deployment(&pipeline);
    let mut meter = meter(&pipeline);
    meter.attempt_begins(&deployment, None, None, None);
    meter.first_event();
    let opened = Opened {
        first: Bytes::from_static(b"first"),
        body: AnswerBody::Builtin(Some(Bytes::from_static(b"second"))),
        decoder: Box::new(Broken { fed: false }),
        failed: None,
        keyed: None,
        idle: Duration::from_secs(1),
        deadline: Instant::now() + Duration::from_secs(1),
    };
    let relay = Relay::new(opened, Vec::new(), deployment, meter, &pipeline);
    let said: Vec<Bytes> = relay.map(|event| event.unwrap()).collect().await;
    assert_eq!(said, ["first", "error"]);
    assert_eq!(pipeline.metrics.panics.get(), 1);
    assert_eq!(pipeline.metrics.in_flight.get(), 0);
    let records = records(&pipeline);
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].status, records[0].error), (200, Some(ErrorClass::Internal)));
    assert!(!records[0].client_cancelled, "it was us");
    assert_eq!(records[0].attempts.len(), 1);
}

#[tokio::test]
async fn a_panic_before_the_first_event_is_no_callers_departure() {
    let pipeline = pipeline();
    for head_sent in [false, true] {
        let mut meter = meter(&pipeline);
        meter
            .mark_of_head()
            .store(head_sent, std::sync::atomic::Ordering::Release);
        meter.attempt_begins(&deployment(&pipeline), None, None, None);
        let broken = catch_unwind(AssertUnwindSafe(move || {
            let _inside = meter;
            panic!("as the test wants it")
        }));
        assert!(broken.is_err());
        let records = records(&pipeline);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].status, if head_sent { 200 } else { 500 });
        assert_eq!(records[0].error, Some(ErrorClass::Internal));
        assert!(!records[0].client_cancelled);
    }
}
