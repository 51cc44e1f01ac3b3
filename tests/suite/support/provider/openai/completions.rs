//! Legacy completions: one choice for each prompt and each `n`, cut to 16 tokens unless more are asked for.

use serde_json::{Value, json};

use super::{
    super::{
        answer::{Answer, DONE, Step, record},
        record::Tokens,
    },
    CREATED, Call, Refusal, usage_object, words,
};

const MAX_TOKENS: u64 = 16;

pub(super) fn answer(call: &Call<'_>) -> Result<Answer, Refusal> {
    let prompts = prompts(call)?;
    call.check_sampling()?;
    let prompt = prompts.iter().map(Prompt::tokens).sum();
    let choices: Vec<Choice> = prompts
        .iter()
        .flat_map(|prompt| (0..call.choices()).map(move |index| Choice::compose(call, prompt, index)))
        .collect();
    Ok(if call.streams() {
        stream(call, &choices, prompt)
    } else {
        whole(call, &choices, prompt)
    })
}

/// One prompt, as text or as the ids of its tokens.
enum Prompt<'a> {
    Text(&'a str),
    TokenIds(usize),
}

impl Prompt<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::TokenIds(_) => "",
        }
    }

    fn tokens(&self) -> Tokens {
        match self {
            Self::Text(text) => words::prompt(words::count(text), text.contains("cached")),
            Self::TokenIds(count) => words::prompt(*count as u64, false),
        }
    }
}

/// An array of numbers is one prompt, an array of anything else is many.
fn prompts<'a>(call: &Call<'a>) -> Result<Vec<Prompt<'a>>, Refusal> {
    let given = &call.body["prompt"];
    let prompts = match given {
        Value::String(text) => vec![Prompt::Text(text)],
        Value::Array(ids) if ids.first().is_some_and(Value::is_number) => vec![Prompt::TokenIds(ids.len())],
        Value::Array(prompts) => prompts
            .iter()
            .filter_map(|prompt| match prompt {
                Value::String(text) => Some(Prompt::Text(text)),
                Value::Array(ids) => Some(Prompt::TokenIds(ids.len())),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    if prompts.is_empty() {
        let message = "Missing required parameter: 'prompt'.";
        return Err(Refusal::new(400, message)
            .at("prompt")
            .coded("missing_required_parameter"));
    }
    Ok(prompts)
}

struct Choice {
    /// The prompt, where it is to be repeated; it is not billed again.
    echo: Option<String>,
    pieces: Vec<String>,
    finish_reason: &'static str,
}

impl Choice {
    fn compose(call: &Call<'_>, prompt: &Prompt<'_>, index: usize) -> Self {
        let reply = format!(" {}", words::reply(prompt.text(), index));
        let mut pieces = words::split(words::before_stop(&reply, &call.stops()));
        let most = call.body["max_tokens"].as_u64().unwrap_or(MAX_TOKENS) as usize;
        let finish_reason = if pieces.len() > most { "length" } else { "stop" };
        pieces.truncate(most);
        let echo = call.flag("echo").then(|| prompt.text().to_owned());
        Self {
            echo,
            pieces,
            finish_reason,
        }
    }

    /// What is sent, piece by piece, with the tokens of each.
    fn parts(&self) -> impl Iterator<Item = (&str, Tokens)> {
        let echo = self.echo.iter().map(|echo| (echo.as_str(), Tokens::default()));
        echo.chain(self.pieces.iter().map(|piece| {
            (
                piece.as_str(),
                Tokens {
                    completion: 1,
                    ..Tokens::default()
                },
            )
        }))
    }

    fn text(&self) -> String {
        self.parts().map(|(text, _)| text).collect()
    }

    fn logprobs(&self, top: usize) -> Value {
        let mut offset = 0;
        let mut offsets = Vec::new();
        for (text, _) in self.parts() {
            offsets.push(offset);
            offset += text.len();
        }
        let tokens: Vec<&str> = self.parts().map(|(text, _)| text).collect();
        let likeliest: Vec<Value> = tokens.iter().map(|token| json!({ *token: -0.25 })).collect();
        json!({
            "tokens": tokens,
            "token_logprobs": vec![-0.25; tokens.len()],
            "top_logprobs": if top == 0 { Value::Null } else { json!(likeliest) },
            "text_offset": offsets,
        })
    }
}

fn billed(choices: &[Choice], prompt: Tokens) -> Tokens {
    prompt + choices.iter().flat_map(Choice::parts).map(|(_, tokens)| tokens).sum()
}

fn common(call: &Call<'_>) -> Value {
    json!({ "id": call.id("cmpl"), "object": "text_completion", "created": CREATED, "model": call.model })
}

fn whole(call: &Call<'_>, choices: &[Choice], prompt: Tokens) -> Answer {
    let billed = billed(choices, prompt);
    let top = call.body["logprobs"].as_u64();
    let listed = choices.iter().enumerate().map(|(index, choice)| {
        json!({
            "text": choice.text(),
            "index": index,
            "logprobs": top.map(|top| choice.logprobs(top as usize)),
            "finish_reason": choice.finish_reason,
        })
    });
    let mut body = common(call);
    body["choices"] = listed.collect();
    body["usage"] = usage_object(billed);
    Answer::json(200, &body).billing(billed)
}

fn stream(call: &Call<'_>, choices: &[Choice], prompt: Tokens) -> Answer {
    let chunk = |index: usize, text: &str, finish_reason: Option<&str>| {
        let mut chunk = common(call);
        chunk["choices"] = json!([{ "text": text, "index": index, "logprobs": null, "finish_reason": finish_reason }]);
        if call.includes_usage() {
            chunk["usage"] = Value::Null;
        }
        record(&chunk)
    };
    let mut steps = Vec::new();
    let mut owed = prompt;
    for (index, choice) in choices.iter().enumerate() {
        for (text, tokens) in choice.parts() {
            steps.push(Step::billed(
                chunk(index, text, None),
                tokens + std::mem::take(&mut owed),
            ));
        }
        let finish = chunk(index, "", Some(choice.finish_reason));
        steps.push(Step::billed(finish, std::mem::take(&mut owed)));
    }
    if call.includes_usage() {
        let mut usage = common(call);
        usage["choices"] = json!([]);
        usage["usage"] = usage_object(billed(choices, prompt));
        steps.push(Step::event(&usage));
    }
    steps.push(Step::send(DONE));
    Answer::stream(steps)
}
