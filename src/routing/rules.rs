//! Custom rules: conditions in CEL, compiled when they are saved, and what happens when one holds.
//!
//! A condition is bounded before it is ever evaluated: in length, in depth, in the number of its parts, and to one level
//! of iteration over lists that are bounded themselves. So its time is bounded as well. It sees the variables of
//! [`VARIABLES`] and nothing else: no prompt, no clock, no network, no regular expressions.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, SourceInfo, operators};
use cel::{Context, Env, ExecutionError, Value};
use chrono::{Datelike as _, Timelike as _};
use smallvec::SmallVec;

use super::facts::Facts;
use super::hash;
use super::strategy::Strategy;

/// Longest condition, in bytes.
pub const MAX_CONDITION_BYTES: usize = 1_000;
/// Levels of nesting in a condition.
const MAX_DEPTH: usize = 40;
/// Parts of a condition: operators, names, literals.
const MAX_PARTS: usize = 300;
/// Levels the parser may open. Its own default is 96.
const PARSER_DEPTH: u16 = 40;
/// A parser that recurses over a long chain must not meet the end of a small stack.
const COMPILER_STACK_BYTES: usize = 32 * 1024 * 1024;

/// What conditions can name, with the fields of those that are objects of known fields.
pub const VARIABLES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("operation", &[]),
    ("stream", &[]),
    ("tools", &[]),
    ("vision", &[]),
    ("input_tokens", &[]),
    ("max_output_tokens", &[]),
    ("key", &["id", "name"]),
    ("team", &[]),
    ("tags", &[]),
    ("headers", &[]),
    ("user", &[]),
    ("time", &["unix", "year", "month", "day", "weekday", "hour", "minute"]),
];

/// Functions and operators that conditions can use.
const FUNCTIONS: &[&str] = &[
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
    operators::NOT_STRICTLY_FALSE,
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "double",
    "string",
];

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, which explanations and records show.
    pub name: String,
    /// When it holds; `None`: always.
    pub when: Option<Condition>,
    /// For which share of those requests.
    pub share: Option<Share>,
    /// What it does.
    pub action: Action,
}

/// A share of all requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// In hundredths of a percent.
    pub basis_points: u32,
    /// By what requests are told apart: those that are alike in it are in the share together.
    pub by: ShareBy,
}

/// What decides whether a request is in a share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShareBy {
    /// Each request by itself.
    Request,
    /// The session, and the key where there is none.
    Session,
    /// The key.
    Key,
}

/// What a rule does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// The request is served by these models, in this order, instead of the one it asks for.
    Route(Vec<String>),
    /// Only these providers or deployments may serve it.
    Pin(Vec<String>),
    /// It is refused, for this reason.
    Deny(String),
    /// Deployments are ordered by this strategy.
    Strategy(Strategy),
}

/// A compiled condition.
#[derive(Clone, Debug)]
pub struct Condition {
    source: String,
    expression: Arc<IdedExpr>,
    /// Which variables it names, as places in [`VARIABLES`].
    needs: u32,
}

/// What is wrong with a condition, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConditionFault {
    /// Line and column, from 1, where the fault has a place.
    pub position: Option<(usize, usize)>,
    /// What is wrong, as a sentence without a full stop.
    pub problem: String,
}

impl ConditionFault {
    fn whole(problem: impl Into<String>) -> Self {
        Self {
            position: None,
            problem: problem.into(),
        }
    }
}

impl std::fmt::Display for ConditionFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.position {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl Condition {
    /// Compiles a condition and tries it on a request; `headers` are the names it may look up.
    ///
    /// # Errors
    /// Everything that is wrong with it, with positions.
    pub fn compile(source: &str, headers: &[String]) -> Result<Self, Vec<ConditionFault>> {
        if source.len() > MAX_CONDITION_BYTES {
            let problem = format!(
                "is {} bytes long; at most {MAX_CONDITION_BYTES} are allowed",
                source.len()
            );
            return Err(vec![ConditionFault::whole(problem)]);
        }
        std::thread::scope(|scope| {
            let compiling = std::thread::Builder::new()
                .name("compile-rule".into())
                .stack_size(COMPILER_STACK_BYTES)
                .spawn_scoped(scope, || compile(source, headers));
            let failed = |why: &str| Err(vec![ConditionFault::whole(why)]);
            match compiling {
                Ok(compiling) => compiling.join().unwrap_or_else(|_| failed("cannot be compiled")),
                Err(_) => failed("cannot be compiled now: there is no thread for it"),
            }
        })
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it holds. One that fails, as for a header that was not sent, does not.
    fn holds(&self, context: &Context<'_, '_>) -> bool {
        matches!(self.evaluate(context), Ok(Value::Bool(true)))
    }

    fn evaluate(&self, context: &Context<'_, '_>) -> Result<Value, ExecutionError> {
        // A rule that meets a bug of the interpreter must not take the request with it.
        catch_unwind(AssertUnwindSafe(|| context.resolve(&self.expression)))
            .unwrap_or_else(|_| Err(ExecutionError::InternalError("a panic".into())))
    }
}

fn compile(source: &str, headers: &[String]) -> Result<Condition, Vec<ConditionFault>> {
    let parser = ENV
        .parser()
        .enable_optional_syntax(false)
        .max_recursion_depth(PARSER_DEPTH);
    let (expression, info) = parser.parse_with_source_info(source).map_err(|errors| {
        let mut faults: Vec<ConditionFault> = Vec::new();
        for error in errors.errors {
            let position = match (usize::try_from(error.pos.0), usize::try_from(error.pos.1)) {
                (Ok(line @ 1..), Ok(column)) => Some((line, column.max(1))),
                _ => None,
            };
            let problem = error.msg.trim().trim_end_matches('.').to_owned();
            let fault = ConditionFault { position, problem };
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
        faults
    })?;
    let mut check = Check {
        source,
        info: &info,
        bound: Vec::new(),
        loops: 0,
        parts: 0,
        needs: 0,
        faults: Vec::new(),
    };
    check.expression(&expression, 0);
    let needs = check.needs;
    if !check.faults.is_empty() {
        return Err(check.faults);
    }
    let condition = Condition {
        source: source.to_owned(),
        expression: Arc::new(expression),
        needs,
    };
    condition.try_out(headers)?;
    Ok(condition)
}

impl Condition {
    /// Evaluates it on made-up requests: types that cannot work and results that are no answer are found now.
    fn try_out(&self, headers: &[String]) -> Result<(), Vec<ConditionFault>> {
        let given: Vec<(String, String)> = headers.iter().map(|name| (name.clone(), "x".to_owned())).collect();
        let sample = sample(&given);
        match self.evaluate(&context(&sample, self.needs)) {
            // What a tag or a header of the sample lacks, a real request may have.
            Ok(Value::Bool(_)) | Err(ExecutionError::NoSuchKey(_)) => Ok(()),
            Ok(other) => {
                let problem = format!("must be true or false; it is of type {}", other.type_of());
                Err(vec![ConditionFault::whole(problem)])
            }
            Err(error) => Err(vec![ConditionFault::whole(words(&error))]),
        }
    }
}

/// An error in words that repeat no value.
fn words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchOverload(overload) => overload.to_string(),
        ExecutionError::UndeclaredReference(name) => format!("there is no {name}"),
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("a {} and a {} cannot be compared", left.type_of(), right.type_of())
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!(
                "{operator} cannot be used on a {} and a {}",
                left.type_of(),
                right.type_of()
            )
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "divides by zero".into(),
        _ => "cannot be evaluated: check the types of what it compares".into(),
    }
}

/// A walk over a condition that finds what must not be in it.
struct Check<'s> {
    source: &'s str,
    info: &'s SourceInfo,
    /// Names that loops around the present place have given out.
    bound: Vec<String>,
    loops: usize,
    parts: usize,
    needs: u32,
    faults: Vec<ConditionFault>,
}

impl Check<'_> {
    fn expression(&mut self, expression: &IdedExpr, depth: usize) {
        self.parts += 1;
        if depth > MAX_DEPTH || self.parts > MAX_PARTS {
            let limit = if depth > MAX_DEPTH {
                format!("is nested too deeply; at most {MAX_DEPTH} levels are allowed")
            } else {
                format!("has too many parts; at most {MAX_PARTS} are allowed")
            };
            if self.faults.iter().all(|fault| fault.problem != limit) {
                self.fault(expression.id, limit);
            }
            return;
        }
        let deeper = depth + 1;
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.name(expression.id, name),
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr {
                    self.field(expression.id, name, &select.field);
                }
                self.expression(&select.operand, deeper);
            }
            Expr::Call(call) => {
                if !FUNCTIONS.contains(&call.func_name.as_str()) {
                    let known = FUNCTIONS.iter().filter(|name| name.starts_with(char::is_alphabetic));
                    let known: Vec<&str> = known.copied().collect();
                    let problem = format!(
                        "there is no function {}; there are {}, has, all, exists, exists_one, filter and map",
                        call.func_name,
                        known.join(", ")
                    );
                    self.fault(expression.id, problem);
                }
                for part in call.target.iter().map(AsRef::as_ref).chain(&call.args) {
                    self.expression(part, deeper);
                }
            }
            Expr::Comprehension(each) => {
                self.expression(&each.iter_range, deeper);
                if self.loops > 0 {
                    // Loops inside loops multiply; one is enough for what there is to look at.
                    self.fault(expression.id, "has a loop inside a loop; use one".to_owned());
                    return;
                }
                let before = self.bound.len();
                self.bound.extend([each.iter_var.clone(), each.accu_var.clone()]);
                self.bound.extend(each.iter_var2.clone());
                self.loops += 1;
                for part in [&each.accu_init, &each.loop_cond, &each.loop_step, &each.result] {
                    self.expression(part, deeper);
                }
                self.loops -= 1;
                self.bound.truncate(before);
            }
            Expr::List(list) => list
                .elements
                .iter()
                .for_each(|element| self.expression(element, deeper)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.expression(&entry.key, deeper);
                        self.expression(&entry.value, deeper);
                    }
                }
            }
            Expr::Struct(_) => self.fault(expression.id, "there are no types to make values of".to_owned()),
        }
    }

    fn name(&mut self, id: u64, name: &str) {
        if self.bound.iter().any(|bound| bound == name) {
            return;
        }
        match VARIABLES.iter().position(|(known, _)| *known == name) {
            Some(place) => self.needs |= 1 << place,
            None => {
                let known: Vec<&str> = VARIABLES.iter().map(|(name, _)| *name).collect();
                self.fault(id, format!("there is no {name}; there are {}", known.join(", ")));
            }
        }
    }

    fn field(&mut self, id: u64, name: &str, field: &str) {
        if self.bound.iter().any(|bound| bound == name) {
            return;
        }
        let fields = VARIABLES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, fields)| *fields);
        if let Some(fields) = fields.filter(|fields| !fields.is_empty() && !fields.contains(&field)) {
            self.fault(id, format!("{name} has no {field}; it has {}", fields.join(", ")));
        }
    }

    fn fault(&mut self, id: u64, problem: String) {
        let position = self.info.offset_for(id).map(|(start, _)| {
            let before: Vec<char> = self.source.chars().take(start as usize).collect();
            let line = before.iter().filter(|&&c| c == '\n').count() + 1;
            let column = before.iter().rev().take_while(|&&c| c != '\n').count() + 1;
            (line, column)
        });
        self.faults.push(ConditionFault { position, problem });
    }
}

/// The variables of a request, of those that are needed.
fn context<'c>(facts: &Facts<'_>, needs: u32) -> Context<'c, 'c> {
    let mut context = Context::with_env(ENV.clone());
    let count = |tokens: u64| Value::Int(i64::try_from(tokens).unwrap_or(i64::MAX));
    for (place, (name, _)) in VARIABLES.iter().enumerate() {
        if needs & (1 << place) == 0 {
            continue;
        }
        let value: Value = match *name {
            "model" => facts.model.into(),
            "operation" => facts.operation.as_str().into(),
            "stream" => Value::Bool(facts.stream),
            "tools" => Value::Bool(facts.tools),
            "vision" => Value::Bool(facts.vision),
            "input_tokens" => count(facts.input_tokens),
            "max_output_tokens" => count(facts.max_output_tokens.unwrap_or(0)),
            "key" => {
                let key = [("id", facts.caller.key_id.as_str()), ("name", facts.caller.key_name)];
                HashMap::from(key).into()
            }
            "team" => facts.caller.team.into(),
            "tags" => facts
                .caller
                .tags
                .iter()
                .map(|(&name, &value)| (name, value))
                .collect::<HashMap<_, _>>()
                .into(),
            "headers" => {
                let headers = facts
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()));
                headers.collect::<HashMap<_, _>>().into()
            }
            "user" => facts.user.unwrap_or_default().into(),
            "time" => {
                let at = facts.at;
                let parts: [(&str, i64); 7] = [
                    ("unix", at.timestamp()),
                    ("year", at.year().into()),
                    ("month", at.month().into()),
                    ("day", at.day().into()),
                    ("weekday", at.weekday().number_from_monday().into()),
                    ("hour", at.hour().into()),
                    ("minute", at.minute().into()),
                ];
                parts
                    .into_iter()
                    .map(|(name, number)| (name, Value::Int(number)))
                    .collect::<HashMap<_, _>>()
                    .into()
            }
            _ => Value::Null,
        };
        context.add_variable_from_value(*name, value);
    }
    context
}

/// A request to try conditions on.
fn sample(headers: &[(String, String)]) -> Facts<'_> {
    use super::facts::Caller;
    use crate::domain::call::Operation;
    Facts {
        id: 1,
        operation: Operation::Chat,
        model: "gpt-4o",
        stream: true,
        tools: true,
        vision: true,
        input_tokens: 1_000,
        max_output_tokens: Some(1_000),
        caller: Caller {
            key_id: "0".to_owned(),
            key_name: "a key",
            team: "a team",
            tags: std::collections::BTreeMap::new(),
        },
        headers,
        prompt_cache_key: None,
        user: Some("somebody"),
        at: chrono::DateTime::UNIX_EPOCH,
    }
}

/// What the rules say about a request.
#[derive(Clone, Default, Debug)]
pub struct Verdict<'p> {
    /// The rules that held, in order.
    pub held: SmallVec<[&'p Rule; 2]>,
    /// The models that serve it instead.
    pub route: Option<&'p [String]>,
    /// Who alone may serve it.
    pub pin: Option<&'p [String]>,
    /// The strategy that orders deployments.
    pub strategy: Option<Strategy>,
    /// The rule that refuses it, and its reason.
    pub denied: Option<(&'p Rule, &'p str)>,
}

/// Asks the rules in order. Of each kind of action the first rule that holds counts; a refusal ends it.
///
/// `session` is what the request's session is told apart by, if it has one.
pub fn judge<'p>(rules: &'p [Rule], facts: &Facts<'_>, session: Option<&str>) -> Verdict<'p> {
    let mut verdict = Verdict::default();
    if rules.is_empty() {
        return verdict;
    }
    let needs = rules
        .iter()
        .filter_map(|rule| rule.when.as_ref())
        .fold(0, |all, when| all | when.needs);
    let context = context(facts, needs);
    for rule in rules {
        if !rule
            .share
            .is_none_or(|share| share.contains(&rule.name, facts, session))
        {
            continue;
        }
        if !rule.when.as_ref().is_none_or(|when| when.holds(&context)) {
            continue;
        }
        verdict.held.push(rule);
        match &rule.action {
            Action::Route(models) => verdict.route = verdict.route.or(Some(models)),
            Action::Pin(to) => verdict.pin = verdict.pin.or(Some(to)),
            Action::Strategy(strategy) => verdict.strategy = verdict.strategy.or(Some(*strategy)),
            Action::Deny(reason) => {
                verdict.denied = Some((rule, reason));
                break;
            }
        }
    }
    verdict
}

impl Share {
    fn contains(self, rule: &str, facts: &Facts<'_>, session: Option<&str>) -> bool {
        let key = facts.caller.key_id.as_str();
        match self.by {
            ShareBy::Request => hash::is_within(rule, &format!("{:032x}", facts.id), self.basis_points),
            ShareBy::Session => hash::is_within(rule, session.unwrap_or(key), self.basis_points),
            ShareBy::Key => hash::is_within(rule, key, self.basis_points),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(source: &str) -> Result<Condition, Vec<String>> {
        Condition::compile(source, &["x-tenant".to_owned()])
            .map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    fn holds(source: &str, facts: &Facts<'_>) -> bool {
        let condition = compiled(source).unwrap_or_else(|faults| panic!("{source}: {faults:?}"));
        condition.holds(&context(facts, condition.needs))
    }

    #[test]
    fn conditions_see_the_request_and_its_caller() {
        let headers = [("x-tenant".to_owned(), "acme".to_owned())];
        let mut facts = sample(&headers);
        facts.caller.tags.insert("env", "prod");
        facts.at = "2026-11-29T20:15:00Z".parse().unwrap();
        for source in [
            "model == 'gpt-4o' && operation == 'chat'",
            "model.startsWith('gpt-') && !model.endsWith('-mini')",
            "stream && tools && vision",
            "input_tokens > 900 && max_output_tokens <= 1000",
            "key.name == 'a key' && team == 'a team'",
            "tags.env == 'prod' && tags['env'] in ['prod', 'stage']",
            "has(tags.env) && !has(tags.other)",
            "'x-tenant' in headers && headers['x-tenant'] == 'acme'",
            "headers['x-other'] == 'x' || true",
            "user == 'somebody'",
            "time.weekday == 7 && time.hour >= 20 && time.hour < 21 && time.year == 2026",
            "['a', 'gpt-4o'].exists(name, name == model)",
            "size(model) == 6",
        ] {
            assert!(holds(source, &facts), "{source}");
        }
        for source in [
            "model == 'x'",
            "headers['x-other'] == 'x'",
            "tags.other == 'x'",
            "!stream",
        ] {
            assert!(!holds(source, &facts), "{source}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_condition_is_said_with_its_place() {
        let faults = |source: &str| compiled(source).err().unwrap_or_default();
        let one = |source: &str| faults(source).first().cloned().unwrap_or_default();
        assert!(one("model == ").starts_with("line 1, column "), "{}", one("model == "));
        assert!(
            one("model ==\n  && true").starts_with("line 2, column 3"),
            "{:?}",
            faults("model ==\n  && true")
        );
        assert!(one("stream && modell == 'x'").starts_with("line 1, column 11: there is no modell; there are model,"));
        assert!(one("true &&\n time.hours > 3").contains("time has no hours; it has unix,"));
        assert!(one("model.matches('^gpt')").contains("there is no function matches"));
        assert_eq!(one("size(model)"), "must be true or false; it is of type int");
        assert!(!one("model > 3").is_empty() && !one("input_tokens == 'many' + 1").is_empty());
        assert!(one("stream.?x == 1").starts_with("line 1"));
        assert!(one("[1].exists(a, [1].exists(b, a == b))").contains("a loop inside a loop"));
        // All of them at once.
        assert_eq!(faults("foo && bar").len(), 2);
    }

    #[test]
    fn no_condition_is_too_much_for_the_compiler_or_the_evaluation() {
        let long = format!("true{}", " || true".repeat(500));
        assert!(compiled(&long).unwrap_err()[0].contains("at most 1000"));
        for hostile in [
            "(".repeat(900),
            "!".repeat(990) + "true",
            "[".repeat(499) + &"]".repeat(499),
            "1+".repeat(490) + "1 > 0",
            "model".to_owned() + &".a".repeat(400),
            "a ? ".repeat(200),
            "'\u{0}' == model".into(),
            "\"".repeat(999),
            "𝒳 == 'x'".into(),
        ] {
            // It is refused or it works; it does not end the process.
            let _ = compiled(&hostile);
        }
        assert!(compiled(&("1+".repeat(490) + "1 > 0")).is_err());
        let wide: Vec<String> = (0..90).map(|n| format!("'m{n}'")).collect();
        assert!(compiled(&format!("model in [{}]", wide.join(","))).is_ok());
    }

    fn rule(name: &str, when: &str, action: Action) -> Rule {
        Rule {
            name: name.into(),
            when: Some(compiled(when).unwrap()),
            share: None,
            action,
        }
    }

    #[test]
    fn of_each_kind_the_first_rule_counts_and_a_refusal_ends_it() {
        let rules = [
            rule("never", "model == 'x'", Action::Deny("no".into())),
            rule("first", "stream", Action::Route(vec!["a".into()])),
            rule("second", "true", Action::Route(vec!["b".into()])),
            rule("order", "true", Action::Strategy(Strategy::CostOptimized)),
            rule("stop", "tools", Action::Deny("no tools".into())),
            rule("late", "true", Action::Pin(vec!["azure".into()])),
        ];
        let facts = sample(&[]);
        let verdict = judge(&rules, &facts, None);
        let held: Vec<&str> = verdict.held.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(held, ["first", "second", "order", "stop"]);
        assert_eq!(verdict.route, Some(&["a".to_owned()][..]));
        assert_eq!((verdict.pin, verdict.strategy), (None, Some(Strategy::CostOptimized)));
        assert_eq!(
            verdict.denied.map(|(rule, reason)| (rule.name.as_str(), reason)),
            Some(("stop", "no tools"))
        );
    }

    #[test]
    fn a_canary_takes_its_share_and_keeps_a_session_together() {
        let canary = |by| Rule {
            share: Some(Share {
                basis_points: 1_000,
                by,
            }),
            ..rule("canary", "true", Action::Route(vec!["new".into()]))
        };
        let routed = |rules: &[Rule], id: u128, session: Option<&str>| {
            let facts = Facts { id, ..sample(&[]) };
            judge(rules, &facts, session).route.is_some()
        };
        let by_request = [canary(ShareBy::Request)];
        let hits = (0..10_000).filter(|&id| routed(&by_request, id, None)).count();
        assert!((850..1_150).contains(&hits), "{hits}");
        let by_session = [canary(ShareBy::Session)];
        for session in ["a", "b", "c", "d"] {
            let first = routed(&by_session, 0, Some(session));
            assert!((1..50).all(|id| routed(&by_session, id, Some(session)) == first));
        }
    }
}
