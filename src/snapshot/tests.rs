use chrono_tz::Tz;
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::file::{ReadError, Seal, SnapshotFile};
use super::*;
use crate::config::{CredentialPath, Fields};
use crate::domain::budget::calendar::Period;
use crate::domain::budget::{Budget, BudgetId, BudgetScope, BudgetTerms, Enforcement, Unpriced};
use crate::domain::call::ParameterPolicy;
use crate::domain::ids::{TeamId, UserId};
use crate::domain::key::Named;
use crate::domain::limit::{LimitOwner, LimitRule, LimitScope, LimitValues, WhenApart};
use crate::domain::money::NanoUsd;
use crate::domain::scope::Scope;

const RULES: Rules = Rules {
    max_age: Duration::from_secs(3_600),
    write: Duration::from_secs(2),
    max_keys: 100,
    credentials: true,
};

fn hash(number: u8) -> KeyHash {
    KeyHash([number; 32])
}

fn id(number: u8) -> KeyId {
    KeyId(Uuid::from_u128(number.into()))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A key with something in every field.
fn row(number: u8, revision: i64) -> Arc<KeyRow> {
    let uuid = |number: u128| Uuid::from_u128(number);
    let organization = Named {
        id: OrganizationId(uuid(1)),
        slug: "acme".to_owned(),
        name: "Acme \"& Sons\"\n".to_owned(),
    };
    let when = DateTime::from_timestamp_nanos(1_700_000_000_123_456_000);
    let scopes = [
        BudgetScope::Organization,
        BudgetScope::Team(TeamId(uuid(2))),
        BudgetScope::Key(id(number)),
        BudgetScope::Tag("cost-center=42".to_owned()),
        BudgetScope::Provider("aws".into()),
        BudgetScope::Model("gpt-4o".into()),
    ];
    let budgets = scopes.into_iter().enumerate().map(|(place, scope)| Budget {
        id: BudgetId(uuid(100 + place as u128)),
        organization: organization.id,
        scope,
        label: "key \"search\"".to_owned(),
        terms: BudgetTerms {
            amount: NanoUsd(i64::MAX - place as i64),
            period: Period::ALL[place % Period::ALL.len()],
            zone: Tz::Europe__Paris,
            enforcement: [Enforcement::Hard, Enforcement::Soft][place % 2],
            unpriced: [Unpriced::Allow, Unpriced::Refuse][place % 2],
            default_output_tokens: (place > 2).then_some(9),
            thresholds: [50, 80, 100].into_iter().collect(),
            enabled: place != 3,
        },
        revision: Revision(place as i64),
    });
    let owners = [
        LimitOwner::Organization,
        LimitOwner::EachKey,
        LimitOwner::Team(TeamId(uuid(2))),
        LimitOwner::Key(id(number)),
        LimitOwner::Tag("a=b".into()),
        LimitOwner::Provider("openai".into()),
    ];
    let limits = owners.into_iter().enumerate().map(|(place, owner)| LimitRule {
        id: uuid(200 + place as u128),
        scope: LimitScope {
            model: (place < 4 && place != 1).then(|| "claude-*".into()),
            owner,
        },
        values: LimitValues {
            requests: Some(1),
            input_tokens: None,
            output_tokens: Some(2),
            tokens: None,
            concurrency: Some(place as u64),
        },
        when_apart: WhenApart::ALL[place % 3],
        enabled: place != 2,
    });
    Arc::new(KeyRow {
        id: id(number),
        shared_credentials: true,
        team: Some(Named {
            id: TeamId(uuid(2)),
            slug: "search".to_owned(),
            name: "Search".to_owned(),
        }),
        owner: Some(UserId(uuid(3))),
        name: "a key".to_owned(),
        prefix: "bn-abcd".to_owned(),
        scope: Scope::new(vec!["gpt-*".to_owned()], vec!["openai".to_owned()]),
        scopes: vec![Arc::new(Scope::new(vec!["bedrock/nova-pro".to_owned()], Vec::new()))],
        rate_limit: 60,
        budgets: budgets.map(Arc::new).collect(),
        parameter_policy: Some(ParameterPolicy::Reject),
        parameters: Some(ParameterPolicy::Warn),
        cache_ttl: Some(seconds(90)),
        max_output_tokens: Some(4_000),
        limits: limits.collect(),
        metadata: json!({"team": "search", "nested": [1, null]}),
        allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        disabled: number.is_multiple_of(2),
        expires_at: Some(when),
        revoked_at: None,
        last_used_at: Some(when),
        created_at: when,
        previous: Some((hash(200), when)),
        revision: Revision(revision),
        organization,
    })
}

fn config(number: u8) -> KnownConfig {
    KnownConfig {
        organization: OrganizationId(Uuid::from_u128(number.into())),
        slug: format!("o-{number}"),
        config: ConfigVersion {
            version: i64::from(number),
            document: "{\"aliases\":{\"a\":\"b\"}}".to_owned(),
            author: "somebody".to_owned(),
            created_at: DateTime::UNIX_EPOCH,
            active: true,
        },
    }
}

fn vault() -> Stored {
    let path = CredentialPath::parse("organizations/acme/providers/openai/eu-1").unwrap();
    let fields: Fields = [("api_key", "sk-canary"), ("weight", "3")].into_iter().collect();
    Stored {
        credentials: [(path, fields), (CredentialPath::shared("aws"), Fields::default())].into(),
    }
}

/// A snapshot with something of everything, heard of now.
fn full() -> Snapshot {
    let snapshot = Snapshot::new(RULES);
    for number in 1..4 {
        snapshot.learn(hash(number), row(number, 7), Utc::now());
    }
    snapshot.configs_are(Revision(5), [config(1), config(2)], true);
    snapshot.replicas_are(3);
    snapshot.credentials_are(&vault(), Moment::now());
    snapshot.heard(Moment::now(), Revision(9));
    snapshot
}

fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    snapshot.last_draft().unwrap().written_out().to_vec()
}

/// So much later, for whoever reads a file.
fn later(by: Duration) -> Moment {
    let now = Moment::now();
    Moment {
        calendar: now.calendar + by,
        ..now
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_read_back_to_the_last_field() {
    let before = full();
    let after = Snapshot::new(RULES);
    after.take_over(&bytes_of(&before), Moment::now()).unwrap();
    let now = Instant::now();
    for number in 1..4 {
        let known = after.known(&hash(number), now).unwrap();
        assert_eq!(format!("{known:?}"), format!("{:?}", row(number, 7)));
    }
    assert_eq!(after.keys_revision(), Some(Revision(9)));
    let (revision, mut configs) = after.configs().unwrap();
    configs.sort_by_key(|known| known.slug.clone());
    assert_eq!((revision, configs), (Revision(5), vec![config(1), config(2)]));
    assert_eq!(after.replicas(), 3);
    let (credentials, _) = after.credentials(now).unwrap();
    assert!(same(&credentials, &vault()));
    // By its id too.
    assert_eq!(after.forget_key(id(2)).as_slice(), [hash(2)]);
    assert!(after.known(&hash(2), now).is_none());
}

#[tokio::test(start_paused = true)]
async fn it_may_be_used_for_its_age_and_not_a_moment_longer_whatever_is_restarted() {
    let mut bytes = bytes_of(&full());
    // Twenty minutes on the disk, ten in a process that hears nothing, and again.
    for minutes in [0, 25] {
        let snapshot = Snapshot::new(RULES);
        snapshot.take_over(&bytes, later(seconds((minutes + 20) * 60))).unwrap();
        assert!(snapshot.lost(), "it is news that nothing is heard");
        assert!(!snapshot.lost());
        tokio::time::advance(seconds(600)).await;
        let age = seconds((minutes + 30) * 60);
        let standing = snapshot.standing(Instant::now());
        let Standing::CutOff { age: stood, left } = standing else {
            panic!("{standing:?}")
        };
        assert!(
            stood.abs_diff(age) < seconds(5) && stood + left == RULES.max_age,
            "{standing:?}"
        );
        assert!(snapshot.known(&hash(1), Instant::now()).is_some());
        snapshot.replicas_are(minutes + 5);
        bytes = bytes_of(&snapshot);
    }
    let snapshot = Snapshot::new(RULES);
    let refused = snapshot.take_over(&bytes, later(RULES.max_age + seconds(1)));
    assert!(matches!(refused, Err(NotTaken::TooOld { .. })), "{refused:?}");
    assert!(!snapshot.can_start(Instant::now()) && snapshot.credentials(Instant::now()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_hears_nothing_ages_out_by_the_steady_clock_and_says_so_once() {
    let snapshot = full();
    snapshot.lost();
    tokio::time::advance(RULES.max_age).await;
    assert!(snapshot.known(&hash(1), Instant::now()).is_some());
    assert!(!snapshot.has_aged_out(Instant::now()));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(snapshot.known(&hash(1), Instant::now()).is_none());
    assert!(!snapshot.holds(&hash(1), &row(1, 7), Instant::now()));
    assert!(snapshot.has_aged_out(Instant::now()) && !snapshot.has_aged_out(Instant::now()));
    assert!(matches!(snapshot.standing(Instant::now()), Standing::AgedOut { .. }));
    snapshot.heard(Moment::now(), Revision(9));
    assert!(
        snapshot.known(&hash(1), Instant::now()).is_some(),
        "it was watched all the time"
    );
    assert_eq!(snapshot.standing(Instant::now()), Standing::InTouch);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_from_the_future_is_not_used() {
    let bytes = bytes_of(&full());
    let earlier = Moment {
        calendar: Utc::now() - TimeDelta::seconds(60),
        ..Moment::now()
    };
    let snapshot = Snapshot::new(RULES);
    assert!(matches!(
        snapshot.take_over(&bytes, earlier),
        Err(NotTaken::FromTheFuture(_))
    ));
    assert!(!snapshot.can_start(Instant::now()));
}

#[test]
fn what_changed_is_forgotten_and_what_is_newer_stays() {
    let snapshot = Snapshot::new(RULES);
    snapshot.learn(hash(1), row(1, 7), Utc::now());
    snapshot.learn(hash(2), row(2, 9), Utc::now());
    // The secret before a rotation.
    snapshot.learn(hash(11), row(1, 7), Utc::now());
    let mut gone = snapshot.forget_changed(&[(id(1), Revision(8)), (id(2), Revision(9)), (id(3), Revision(9))]);
    gone.sort_by_key(|hash| hash.0);
    assert_eq!(gone, [hash(1), hash(11)]);
    assert_eq!(snapshot.keys(), [id(2)]);
}

#[test]
fn keys_are_bounded_and_the_longest_known_goes_first() {
    let snapshot = Snapshot::new(RULES);
    for number in 0..200_u8 {
        let since = DateTime::UNIX_EPOCH + TimeDelta::seconds(number.into());
        snapshot.learn(hash(number), row(number, 1), since);
    }
    let known: Vec<u8> = (0..200)
        .filter(|n| snapshot.known(&hash(*n), Instant::now()).is_some())
        .collect();
    assert!(known.len() <= 100 && known.len() > 80, "{}", known.len());
    assert!(known.iter().copied().eq(known[0]..200), "the youngest of them");
    assert_eq!(snapshot.keys().len(), known.len());
}

#[tokio::test(start_paused = true)]
async fn it_is_written_when_something_changed_at_a_bounded_rate_and_twice_a_minute_otherwise() {
    let snapshot = Snapshot::new(RULES);
    assert!(snapshot.draft(Instant::now()).is_none(), "there is nothing");
    let snapshot = full();
    assert!(snapshot.draft(Instant::now()).is_some());
    snapshot.wrote(Instant::now(), Duration::from_millis(500));
    snapshot.learn(hash(9), row(9, 9), Utc::now());
    tokio::time::advance(seconds(9)).await;
    assert!(
        snapshot.draft(Instant::now()).is_none(),
        "half a second may be taken every ten"
    );
    tokio::time::advance(seconds(1)).await;
    assert!(snapshot.draft(Instant::now()).is_some());
    snapshot.not_written(Instant::now());
    tokio::time::advance(RULES.write).await;
    assert!(snapshot.draft(Instant::now()).is_some(), "what failed is tried again");
    snapshot.wrote(Instant::now(), Duration::ZERO);
    let heard = |after: i64| Moment {
        calendar: Utc::now() + TimeDelta::seconds(after),
        ..Moment::now()
    };
    for (after, due) in [(10, false), (31, true)] {
        tokio::time::advance(seconds(60)).await;
        snapshot.heard(heard(after), Revision(9));
        assert_eq!(snapshot.draft(Instant::now()).is_some(), due, "{after}");
    }
}

#[test]
fn nothing_is_kept_where_nothing_is_to_be() {
    let snapshot = Snapshot::off();
    snapshot.learn(hash(1), row(1, 1), Utc::now());
    snapshot.configs_are(Revision(1), [config(1)], true);
    snapshot.credentials_are(&vault(), Moment::now());
    snapshot.lost();
    assert_eq!(snapshot.standing(Instant::now()), Standing::InTouch);
    assert!(snapshot.known(&hash(1), Instant::now()).is_none() && snapshot.configs().is_none());
    assert!(snapshot.credentials(Instant::now()).is_none() && snapshot.last_draft().is_none());
}

proptest! {
    #[test]
    fn what_is_cut_or_changed_within_its_seal_is_not_half_used(at in any::<prop::sample::Index>(), cut: bool) {
        let whole = bytes_of(&full());
        let at = at.index(whole.len() - 1);
        let mut bytes = whole.clone();
        match cut {
            true => bytes.truncate(at),
            false => bytes[at] = 0xff,
        }
        let snapshot = Snapshot::new(RULES);
        prop_assert!(matches!(snapshot.take_over(&bytes, Moment::now()), Err(NotTaken::Unreadable(_))));
        prop_assert!(snapshot.keys().is_empty() && snapshot.credentials(Instant::now()).is_none());
    }
}

/// No secret at all, but it tells places apart.
struct Marked(u8);

impl Seal for Marked {
    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        std::iter::once(self.0).chain(plain.iter().copied()).collect()
    }

    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (mark, plain) = sealed.split_first()?;
        (*mark == self.0).then(|| Zeroizing::new(plain.to_vec()))
    }
}

#[test]
fn the_file_is_private_whole_and_never_replaced_by_an_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let beneath = dir.path().join("data");
    let file = SnapshotFile::new(&beneath, Arc::new(Marked(1)));
    assert!(file.read().unwrap().is_none());
    let snapshot = full();
    let older = snapshot.last_draft().unwrap();
    snapshot.replicas_are(8);
    let newer = snapshot.last_draft().unwrap();
    file.write(&newer).unwrap();
    file.write(&older).unwrap();
    assert_eq!(*file.read().unwrap().unwrap(), *newer.written_out());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(file.path()), mode(&beneath)), (0o600, 0o700));
    }
    let names: Vec<_> = std::fs::read_dir(&beneath)
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(names, [file::FILE_NAME], "no draft is left");

    let foreign = SnapshotFile::new(&beneath, Arc::new(Marked(2)));
    assert!(matches!(foreign.read(), Err(ReadError::Sealed)));
    std::fs::write(file.path(), b"something else").unwrap();
    assert!(matches!(file.read(), Err(ReadError::Foreign)));
}
