//! Which models and providers a key, a team or an organization may use.
//!
//! A request must satisfy both lists of every scope that applies to it; an empty or missing list restricts nothing.
//! Entries are exact names, aliases or globs (`claude-*`). Unknown names are allowed in a scope, because models appear
//! later than keys do.

/// One scope: the `allowed_models` of a key, team or organization, ready to be asked.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Scope {
    models: Vec<String>,
    providers: Vec<String>,
}

impl Scope {
    /// A scope out of its two lists. Provider synonyms become ids, also in front of a model (`bedrock/nova-pro`).
    pub fn new(models: Vec<String>, providers: Vec<String>) -> Self {
        let models = models
            .into_iter()
            .map(|entry| match entry.split_once('/') {
                Some((provider, model)) if canonical_provider(provider) != provider => {
                    format!("{}/{model}", canonical_provider(provider))
                }
                _ => entry,
            })
            .collect();
        let providers = providers
            .into_iter()
            .map(|p| canonical_provider(&p).to_owned())
            .collect();
        Self { models, providers }
    }

    /// The model entries; empty means all.
    pub fn models(&self) -> &[String] {
        &self.models
    }

    /// The provider entries; empty means all.
    pub fn providers(&self) -> &[String] {
        &self.providers
    }

    /// Whether the scope lets a model through that is known by any of `names`.
    pub fn allows_model<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> bool {
        self.models.is_empty() || names.any(|name| self.models.iter().any(|entry| matches(entry, name)))
    }

    /// Whether the scope lets a provider through.
    pub fn allows_provider(&self, provider: &str) -> bool {
        self.providers.is_empty() || self.providers.iter().any(|entry| matches(entry, provider))
    }
}

/// The id behind a provider's synonym: people write `bedrock` and `vertex`, the ids are `aws` and `gcp`.
pub fn canonical_provider(name: &str) -> &str {
    match name {
        "bedrock" => "aws",
        "vertex" => "gcp",
        id => id,
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any characters and everything else for itself.
///
/// Linear in practice and never worse than the product of the lengths: it remembers only the last star.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            star = Some((star_p, star_t + 1));
            p = star_p + 1;
            t = star_t + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&b| b == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn models(entries: &[&str]) -> Scope {
        Scope::new(entries.iter().map(|&e| e.into()).collect(), vec![])
    }

    #[test]
    fn an_empty_list_restricts_nothing() {
        assert!(Scope::default().allows_model(["anything"].into_iter()));
        assert!(Scope::default().allows_provider("anything"));
    }

    #[test]
    fn entries_are_names_aliases_or_globs() {
        let scope = models(&["gpt-4o", "claude-*", "*-mini"]);
        assert!(scope.allows_model(["gpt-4o"].into_iter()));
        assert!(scope.allows_model(["claude-opus-5"].into_iter()));
        assert!(scope.allows_model(["gpt-5.4-mini"].into_iter()));
        assert!(
            scope.allows_model(["unknown", "gpt-4o"].into_iter()),
            "any of a model's names will do"
        );
        assert!(!scope.allows_model(["gpt-4o-2024"].into_iter()));
        assert!(!scope.allows_model(["xclaude-opus"].into_iter()));
    }

    #[test]
    fn a_synonym_in_front_of_a_model_is_the_same_as_the_provider_id() {
        let scope = models(&["bedrock/nova-*", "meta/llama"]);
        assert!(scope.allows_model(["aws/nova-pro"].into_iter()));
        assert!(!scope.allows_model(["nova-pro"].into_iter()), "only at that provider");
        assert!(scope.allows_model(["meta/llama"].into_iter()));
    }

    #[test]
    fn a_provider_may_be_named_by_its_synonym() {
        let scope = Scope::new(vec![], vec!["bedrock".into()]);
        assert!(scope.allows_provider("aws"));
        assert!(!scope.allows_provider("gcp"));
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_every_glob_made_from_it(name in "[a-z0-9.-]{1,20}", cut in 0..20usize) {
            let cut = cut.min(name.len());
            prop_assert!(matches(&name, &name));
            let (front, back) = name.split_at(cut);
            let (begins, ends, longer) = (format!("{front}*"), format!("*{back}"), format!("{name}x"));
            prop_assert!(matches(&begins, &name));
            prop_assert!(matches(&ends, &name));
            prop_assert!(!matches(&longer, &name));
        }
    }
}
