//! Claims about how tokens are kept fresh, with a clock that is moved by hand.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::*;

/// A source that numbers its tokens, takes its time, and can be out of order.
#[derive(Debug, Default)]
struct Service {
    asked: AtomicUsize,
    lifetime_s: AtomicUsize,
    takes_ms: AtomicUsize,
    down: std::sync::atomic::AtomicBool,
}

#[derive(Debug)]
struct Numbered(Arc<Service>);

#[async_trait::async_trait]
impl TokenSource for Numbered {
    type Token = usize;

    fn what(&self) -> &'static str {
        "number"
    }

    fn refresh_before(&self) -> Duration {
        Duration::from_secs(300)
    }

    async fn fetch(&self) -> Result<Fetched<usize>, CredentialError> {
        let number = self.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::time::sleep(Duration::from_millis(self.0.takes_ms.load(Ordering::SeqCst) as u64)).await;
        if self.0.down.load(Ordering::SeqCst) {
            return Err(CredentialError::Unreadable);
        }
        let lifetime = Duration::from_secs(self.0.lifetime_s.load(Ordering::SeqCst) as u64);
        Ok(Fetched {
            token: number,
            lifetime,
        })
    }
}

impl Service {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn goes_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }
}

/// A service whose tokens last an hour and take 50 ms, and its cell.
fn hourly() -> (Arc<Service>, TokenCell<usize>) {
    let service = Arc::new(Service::default());
    service.lifetime_s.store(3600, Ordering::SeqCst);
    service.takes_ms.store(50, Ordering::SeqCst);
    let cell = TokenCell::new(Numbered(Arc::clone(&service)));
    (service, cell)
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn number(cell: &TokenCell<usize>) -> usize {
    **cell.get().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn all_that_wait_share_one_fetch() {
    let (service, cell) = hourly();
    let numbers = join_all((0..100).map(|_| number(&cell))).await;
    assert!(numbers.iter().all(|number| *number == 1));
    assert_eq!(service.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_does_not_take_the_fetch_away_from_the_others() {
    let (service, cell) = hourly();
    let leaver = tokio::time::timeout(Duration::from_millis(10), cell.get());
    let (left, stayed) = tokio::join!(leaver, number(&cell));
    assert!(left.is_err());
    assert_eq!((stayed, service.asked()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_old_one_serves_without_waiting_while_the_next_is_fetched() {
    let (service, cell) = hourly();
    assert_eq!(number(&cell).await, 1);
    pass(3299).await;
    assert_eq!((**cell.ready().unwrap(), service.asked()), (1, 1));
    pass(2).await;
    let before = Instant::now();
    for _ in 0..10 {
        assert_eq!(number(&cell).await, 1);
    }
    assert_eq!(Instant::now(), before, "nobody waited");
    pass(1).await;
    assert_eq!((number(&cell).await, service.asked()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn an_outage_keeps_the_old_one_to_its_end_and_asks_less_and_less_often() {
    let (service, cell) = hourly();
    number(&cell).await;
    service.goes_down(true);
    pass(3301).await;
    for _ in 0..298 {
        assert_eq!(number(&cell).await, 1);
        pass(1).await;
    }
    let asked = service.asked() - 1;
    assert!((8..=16).contains(&asked), "{asked} questions in five minutes");
    pass(31).await;
    assert_eq!(cell.get().await.unwrap_err(), CredentialError::Unreadable);
    service.goes_down(false);
    pass(31).await;
    assert!(number(&cell).await > asked);
}

#[tokio::test(start_paused = true)]
async fn a_dead_service_is_not_asked_once_per_request() {
    let (service, cell) = hourly();
    service.goes_down(true);
    for _ in 0..100 {
        assert_eq!(cell.get().await.unwrap_err(), CredentialError::Unreadable);
    }
    assert_eq!(service.asked(), 1);
    service.goes_down(false);
    pass(1).await;
    assert_eq!(number(&cell).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_is_given_up() {
    let (service, cell) = hourly();
    service.takes_ms.store(600_000, Ordering::SeqCst);
    let before = Instant::now();
    let outcomes = join_all((0..20).map(|_| cell.get())).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Err(CredentialError::Timeout)))
    );
    assert_eq!((before.elapsed(), service.asked()), (FETCH_TIMEOUT, 1));
}

#[tokio::test(start_paused = true)]
async fn only_what_was_really_refused_is_dropped() {
    let (service, cell) = hourly();
    let first = cell.get().await.unwrap();
    assert!(cell.refused(&first));
    let second = cell.get().await.unwrap();
    // A late answer to a request that went out with the first one says nothing of the second.
    assert!(cell.refused(&first));
    assert!(Arc::ptr_eq(&second, &cell.get().await.unwrap()));
    assert_eq!(service.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_refuses_everything_does_not_make_us_fetch_for_each_request() {
    let (service, cell) = hourly();
    for _ in 0..1000 {
        let token = cell.get().await.unwrap();
        cell.refused(&token);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let asked = service.asked();
    assert!((3..=12).contains(&asked), "{asked} fetches in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_short_life_is_halved_and_one_that_is_over_is_a_failure() {
    let (service, cell) = hourly();
    service.lifetime_s.store(60, Ordering::SeqCst);
    number(&cell).await;
    pass(29).await;
    assert_eq!((number(&cell).await, service.asked()), (1, 1));
    pass(2).await;
    number(&cell).await;
    pass(1).await;
    assert_eq!((number(&cell).await, service.asked()), (2, 2));

    let (service, cell) = hourly();
    service.lifetime_s.store(0, Ordering::SeqCst);
    assert_eq!(cell.get().await.unwrap_err(), CredentialError::Expired);
    assert_eq!(cell.get().await.unwrap_err(), CredentialError::Expired);
    assert_eq!(service.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_life_without_end_is_looked_after_once_a_day() {
    let (service, cell) = hourly();
    service.lifetime_s.store(usize::MAX, Ordering::SeqCst);
    number(&cell).await;
    pass(86_400).await;
    assert_eq!((number(&cell).await, service.asked()), (2, 2));
}
