//! What the body of a frame says: how a request stands, or how far the database has come.
//!
//! A request has an entry as soon as it may cost money ([`Kind::Open`], written again when a provider has the request) and
//! one at its end ([`Kind::Done`]). Both hold a whole [`UsageRecord`], so that the last entry of a request is all that
//! has to be known of it. Nothing in it is a prompt, an answer or a secret.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::position::Position;
use crate::domain::call::{CacheStatus, Dialect, ErrorClass, Operation};
use crate::domain::ids::{KeyId, OrganizationId, RequestId, TeamId};
use crate::domain::money::NanoUsd;
use crate::domain::record::{AttemptRecord, CachedFrom, Charge, Owner, UsageRecord};
use crate::domain::trace::{SpanId, TraceContext, TraceId};
use crate::domain::usage::{TokenUsage, UsageSource};

/// Names are cut off here; real ones have a tenth of it, and the database's columns are not wider either.
const MAX_TEXT_BYTES: usize = 1_024;
/// The most of the reasons of routing; they are made to be shorter.
const MAX_REASONS_BYTES: usize = 4_096;
/// A cost that is not known.
const UNKNOWN: i64 = i64::MIN;

/// The kinds of entries, as they are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A request under way.
    Open = 1,
    /// A request that is over.
    Done = 2,
    /// Everything done before a position is in the database.
    Committed = 3,
}

/// The beginning of an entry, which is enough to keep the books.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Brief {
    /// A request under way.
    Open(RequestId),
    /// A request that is over.
    Done {
        /// Whose it is.
        key: KeyId,
        /// Which.
        id: RequestId,
        /// Its cost, if it is known.
        cost: Option<NanoUsd>,
    },
    /// Everything done before this position is in the database.
    Committed(Position),
}

/// A body cannot be read, although its checksum is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unreadable;

/// The body for a record.
pub(super) fn encode(kind: Kind, record: &UsageRecord) -> Vec<u8> {
    // Taken apart, so that a field that is added has to be written here too: at the end, so that bodies of an earlier
    // version can still be read.
    let UsageRecord {
        id,
        owner: Owner {
            organization,
            team,
            key,
        },
        admitted_at,
        operation,
        dialect,
        requested_model,
        stream,
        status,
        error,
        client_cancelled,
        latency,
        first_token,
        overhead,
        attempts,
        cache,
        cached_from,
        routing,
        trace,
    } = record;
    let mut out = Out(Vec::with_capacity(256 + 160 * attempts.len()));
    out.byte(kind as u8);
    out.bytes(id.0.as_bytes());
    out.bytes(key.0.as_bytes());
    out.cost(record.cost());
    out.bytes(organization.0.as_bytes());
    out.option(*team, |out, team| out.bytes(team.0.as_bytes()));
    out.signed(admitted_at.timestamp());
    out.number(u64::from(admitted_at.timestamp_subsec_nanos()));
    out.text(operation.as_str());
    out.text(dialect.as_str());
    out.text(requested_model);
    out.byte(u8::from(*stream) | u8::from(*client_cancelled) << 1);
    out.number(u64::from(*status));
    out.option(*error, |out, class| out.text(class.as_str()));
    out.duration(*latency);
    out.option(*first_token, Out::duration);
    out.duration(*overhead);
    out.number(attempts.len() as u64);
    for attempt in attempts {
        out.attempt(attempt);
    }
    out.text(cache.as_str());
    out.option(cached_from.as_ref(), |out, CachedFrom { provider, model, saved }| {
        out.text(provider.as_str());
        out.text(model.as_str());
        out.cost(*saved);
    });
    out.option(routing.as_deref(), Out::reasons);
    out.option(*trace, |out, TraceContext { trace, span, sampled }| {
        out.bytes(&trace.0);
        out.bytes(&span.0);
        out.byte(u8::from(sampled));
    });
    out.0
}

/// The body that says how far the database has come.
pub(super) fn committed(before: Position) -> Vec<u8> {
    let mut out = Out(Vec::with_capacity(17));
    out.byte(Kind::Committed as u8);
    out.bytes(&before.sequence.to_le_bytes());
    out.bytes(&before.offset.to_le_bytes());
    out.0
}

/// Reads the beginning of a body.
pub(super) fn brief(body: &[u8]) -> Result<Brief, Unreadable> {
    let mut body = In(body);
    match body.byte()? {
        kind if kind == Kind::Committed as u8 => Ok(Brief::Committed(Position {
            sequence: u64::from_le_bytes(body.array()?),
            offset: u64::from_le_bytes(body.array()?),
        })),
        kind if kind == Kind::Open as u8 => Ok(Brief::Open(RequestId(body.uuid()?))),
        kind if kind == Kind::Done as u8 => Ok(Brief::Done {
            id: RequestId(body.uuid()?),
            key: KeyId(body.uuid()?),
            cost: body.cost()?,
        }),
        _ => Err(Unreadable),
    }
}

/// Reads the record of a body that holds one.
pub(super) fn decode(body: &[u8]) -> Result<UsageRecord, Unreadable> {
    let mut body = In(body);
    if ![Kind::Open as u8, Kind::Done as u8].contains(&body.byte()?) {
        return Err(Unreadable);
    }
    let (id, key) = (RequestId(body.uuid()?), KeyId(body.uuid()?));
    body.cost()?;
    let owner = Owner {
        organization: OrganizationId(body.uuid()?),
        team: body.option(|body| Ok(TeamId(body.uuid()?)))?,
        key,
    };
    let seconds = body.signed()?;
    let nanos = u32::try_from(body.number()?).map_err(|_| Unreadable)?;
    let admitted_at = DateTime::<Utc>::from_timestamp(seconds, nanos).ok_or(Unreadable)?;
    let operation = body.word(Operation::ALL, Operation::as_str)?;
    let dialect = body.word(Dialect::ALL, Dialect::as_str)?;
    let requested_model = body.text()?.to_owned();
    let flags = body.byte()?;
    let status = u16::try_from(body.number()?).map_err(|_| Unreadable)?;
    let error = body.option(|body| body.word(ErrorClass::ALL, ErrorClass::as_str))?;
    let latency = body.duration()?;
    let first_token = body.option(In::duration)?;
    let overhead = body.duration()?;
    let mut attempts = Vec::new();
    for _ in 0..body.number()? {
        attempts.push(body.attempt()?);
    }
    let cache = body.word(CacheStatus::ALL, CacheStatus::as_str)?;
    let cached_from = body.option(|body| {
        Ok(CachedFrom {
            provider: body.text()?.into(),
            model: body.text()?.into(),
            saved: body.cost()?,
        })
    })?;
    // An entry from before there were reasons ends here.
    let routing = match body.0.is_empty() {
        true => None,
        false => body.option(In::text)?.map(Into::into),
    };
    // And one from before there were traces, here.
    let trace = match body.0.is_empty() {
        true => None,
        false => body.option(|body| {
            Ok(TraceContext {
                trace: TraceId(body.array()?),
                span: SpanId(body.array()?),
                sampled: body.byte()? != 0,
            })
        })?,
    };
    Ok(UsageRecord {
        id,
        owner,
        admitted_at,
        operation,
        dialect,
        requested_model,
        stream: flags & 1 != 0,
        status,
        error,
        client_cancelled: flags & 2 != 0,
        latency,
        first_token,
        overhead,
        cache,
        cached_from,
        attempts,
        routing,
        trace,
    })
}

struct Out(Vec<u8>);

impl Out {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Seven bits in a byte, the lowest first; the eighth says that more follow.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    fn signed(&mut self, number: i64) {
        self.bytes(&number.to_le_bytes());
    }

    fn cost(&mut self, cost: Option<NanoUsd>) {
        self.signed(cost.map_or(UNKNOWN, |cost| cost.0));
    }

    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    /// JSON, which must not be cut; whoever made it has bounded it.
    fn reasons(&mut self, json: &str) {
        let json = if json.len() <= MAX_REASONS_BYTES { json } else { "{}" };
        self.number(json.len() as u64);
        self.bytes(json.as_bytes());
    }

    fn duration(&mut self, duration: Duration) {
        self.number(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn attempt(&mut self, attempt: &AttemptRecord) {
        self.text(attempt.deployment.as_str());
        self.text(attempt.provider.as_str());
        self.text(attempt.model.as_str());
        self.duration(attempt.started_after);
        self.duration(attempt.latency);
        self.option(attempt.first_token, Self::duration);
        self.option(attempt.status, |out, status| out.number(u64::from(status)));
        self.option(attempt.error, |out, class| out.text(class.as_str()));
        self.option(attempt.upstream_request_id.as_deref(), Self::text);
        let Charge {
            usage,
            source,
            cost,
            price_version,
        } = &attempt.charge;
        self.usage(usage);
        self.byte(u8::from(*source == UsageSource::Estimated));
        self.cost(*cost);
        self.option(price_version.as_ref(), |out, version| out.text(version.as_str()));
    }

    fn usage(&mut self, usage: &TokenUsage) {
        let TokenUsage {
            input,
            cached_input,
            cache_write,
            cache_write_1h,
            output,
            reasoning,
            audio_input,
            audio_output,
            // The version of the price says it.
            service: _,
        } = *usage;
        let counts = [input, cached_input, cache_write, cache_write_1h, output, reasoning];
        counts.into_iter().for_each(|count| self.number(count));
        self.number(audio_input);
        self.number(audio_output);
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        self.take(N)?.try_into().map_err(|_| Unreadable)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        Ok(self.array::<1>()?[0])
    }

    fn uuid(&mut self) -> Result<Uuid, Unreadable> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    fn number(&mut self) -> Result<u64, Unreadable> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Unreadable)
    }

    fn signed(&mut self) -> Result<i64, Unreadable> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn cost(&mut self) -> Result<Option<NanoUsd>, Unreadable> {
        Ok(Some(self.signed()?).filter(|&cost| cost != UNKNOWN).map(NanoUsd))
    }

    fn text(&mut self) -> Result<&'a str, Unreadable> {
        let length = usize::try_from(self.number()?).map_err(|_| Unreadable)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Unreadable)
    }

    fn word<T: Copy>(&mut self, all: &[T], word: impl Fn(T) -> &'static str) -> Result<T, Unreadable> {
        let text = self.text()?;
        all.iter()
            .copied()
            .find(|&member| word(member) == text)
            .ok_or(Unreadable)
    }

    fn duration(&mut self) -> Result<Duration, Unreadable> {
        self.number().map(Duration::from_nanos)
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Unreadable>) -> Result<Option<T>, Unreadable> {
        match self.byte()? {
            0 => Ok(None),
            _ => read(self).map(Some),
        }
    }

    fn attempt(&mut self) -> Result<AttemptRecord, Unreadable> {
        Ok(AttemptRecord {
            deployment: self.text()?.into(),
            provider: self.text()?.into(),
            model: self.text()?.into(),
            started_after: self.duration()?,
            latency: self.duration()?,
            first_token: self.option(Self::duration)?,
            status: self.option(|body| u16::try_from(body.number()?).map_err(|_| Unreadable))?,
            error: self.option(|body| body.word(ErrorClass::ALL, ErrorClass::as_str))?,
            upstream_request_id: self.option(|body| Ok(Arc::from(body.text()?)))?,
            charge: Charge {
                usage: self.usage()?,
                source: if self.byte()? == 0 {
                    UsageSource::Reported
                } else {
                    UsageSource::Estimated
                },
                cost: self.cost()?,
                price_version: self.option(|body| Ok(body.text()?.into()))?,
            },
        })
    }

    fn usage(&mut self) -> Result<TokenUsage, Unreadable> {
        Ok(TokenUsage {
            input: self.number()?,
            cached_input: self.number()?,
            cache_write: self.number()?,
            cache_write_1h: self.number()?,
            output: self.number()?,
            reasoning: self.number()?,
            audio_input: self.number()?,
            audio_output: self.number()?,
            service: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![".{0,40}", "[a-z0-9/.-]{0,300}"]
    }

    fn uuid() -> impl Strategy<Value = Uuid> {
        any::<u128>().prop_map(Uuid::from_u128)
    }

    fn class() -> impl Strategy<Value = Option<ErrorClass>> {
        prop::option::of(prop::sample::select(ErrorClass::ALL))
    }

    fn duration() -> impl Strategy<Value = Duration> {
        any::<u64>().prop_map(Duration::from_nanos)
    }

    prop_compose! {
        fn charge()(
            counts in any::<[u64; 8]>(),
            estimated in any::<bool>(),
            cost in prop::option::of(0..i64::MAX),
            version in prop::option::of(text()),
        ) -> Charge {
            let [input, cached_input, cache_write, cache_write_1h, output, reasoning, audio_input, audio_output] = counts;
            Charge {
                usage: TokenUsage {
                    input, cached_input, cache_write, cache_write_1h, output, reasoning, audio_input, audio_output,
                    service: None,
                },
                source: if estimated { UsageSource::Estimated } else { UsageSource::Reported },
                cost: cost.map(NanoUsd),
                price_version: version.map(Into::into),
            }
        }
    }

    prop_compose! {
        fn attempt()(
            names in (text(), text(), text()),
            times in (duration(), duration(), prop::option::of(duration())),
            status in prop::option::of(any::<u16>()),
            error in class(),
            upstream in prop::option::of(text()),
            charge in charge(),
        ) -> AttemptRecord {
            AttemptRecord {
                deployment: names.0.into(), provider: names.1.into(), model: names.2.into(),
                started_after: times.0, latency: times.1, first_token: times.2,
                status, error, upstream_request_id: upstream.map(Into::into), charge,
            }
        }
    }

    prop_compose! {
        fn cached_from()(provider in text(), model in text(), saved in prop::option::of(0..i64::MAX)) -> CachedFrom {
            CachedFrom { provider: provider.into(), model: model.into(), saved: saved.map(NanoUsd) }
        }
    }

    prop_compose! {
        fn record()(
            ids in (uuid(), uuid(), prop::option::of(uuid()), uuid()),
            at in (-62_135_596_800_i64..253_402_300_799, 0..1_000_000_000_u32),
            operation in prop::sample::select(Operation::ALL),
            dialect in prop::sample::select(Dialect::ALL),
            requested_model in text(),
            flags in any::<(bool, bool)>(),
            status in any::<u16>(),
            error in class(),
            times in (duration(), prop::option::of(duration()), duration()),
            attempts in prop::collection::vec(attempt(), 0..4),
            cache in prop::sample::select(CacheStatus::ALL),
            cached_from in prop::option::of(cached_from()),
            (routing, trace) in (
                prop::option::of(text()),
                prop::option::of((any::<[u8; 16]>(), any::<[u8; 8]>(), any::<bool>())),
            ),
        ) -> UsageRecord {
            UsageRecord {
                id: RequestId(ids.0),
                owner: Owner { organization: OrganizationId(ids.1), team: ids.2.map(TeamId), key: KeyId(ids.3) },
                admitted_at: DateTime::from_timestamp(at.0, at.1).unwrap(),
                operation, dialect, requested_model,
                stream: flags.0, client_cancelled: flags.1,
                status, error,
                latency: times.0, first_token: times.1, overhead: times.2,
                cache, cached_from,
                attempts,
                routing: routing.map(Into::into),
                trace: trace.map(|(trace, span, sampled)| TraceContext { trace: TraceId(trace), span: SpanId(span), sampled }),
            }
        }
    }

    proptest! {
        #[test]
        fn every_record_is_read_as_it_was_written(record in record(), done in any::<bool>()) {
            let body = encode(if done { Kind::Done } else { Kind::Open }, &record);
            let read = decode(&body).unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{record:?}"));
            prop_assert_eq!(brief(&body), Ok(if done {
                Brief::Done { id: record.id, key: record.owner.key, cost: record.cost() }
            } else {
                Brief::Open(record.id)
            }));
        }

        #[test]
        fn no_body_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..5_u8) {
            let mut body = vec![kind];
            body.extend(bytes);
            let _ = decode(&body);
            let _ = brief(&body);
        }
    }

    #[test]
    fn a_name_of_any_length_has_its_place() {
        let position = Position {
            sequence: 3,
            offset: 99,
        };
        assert_eq!(brief(&committed(position)), Ok(Brief::Committed(position)));
        let mut out = Out(Vec::new());
        out.text(&"ü".repeat(1_000));
        assert_eq!(In(&out.0).text(), Ok("ü".repeat(512).as_str()));
    }
}
