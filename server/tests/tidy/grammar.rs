//! Just enough of Rust's grammar to find words, names and functions in a source file. Knows nothing of files.

use super::workspace::numbered;

/// Blanks comments and the contents of texts and characters, keeps line breaks, and ends before the file's own tests.
pub fn code(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut blanked = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let end = token_end(&characters, at);
        let blank = end > at + 1;
        for &character in &characters[at..end] {
            blanked.push(if blank && character != '\n' { ' ' } else { character });
        }
        at = end;
    }
    let tests = blanked.find("#[cfg(test)]\nmod tests {").unwrap_or(blanked.len());
    blanked.truncate(tests);
    blanked
}

/// Where the comment, text or character that starts at `at` ends; one further for anything else.
fn token_end(characters: &[char], at: usize) -> usize {
    let here = |offset: usize| characters.get(at + offset).copied().unwrap_or(' ');
    let find = |from: usize, is_end: &dyn Fn(usize) -> bool| {
        (from..characters.len()).find(|index| is_end(*index)).unwrap_or(characters.len())
    };
    let within_word = at > 0 && is_word(characters[at - 1]) && characters[at - 1] != 'b';
    let end = match here(0) {
        '/' if here(1) == '/' => find(at, &|i| characters[i] == '\n'),
        '/' if here(1) == '*' => find(at + 3, &|i| characters[i - 1] == '*' && characters[i] == '/') + 1,
        '"' => text_end(characters, at + 1),
        'r' if !within_word && (here(1) == '"' || here(1) == '#' && matches!(here(2), '"' | '#')) => {
            let hashes = (1..).take_while(|offset| here(*offset) == '#').count();
            let closes = |i: usize| {
                characters[i] == '"' && (1..=hashes).all(|hash| characters.get(i + hash) == Some(&'#'))
            };
            find(at + hashes + 2, &closes) + hashes + 1
        }
        '\'' if here(1) == '\\' => find(at + 3, &|i| characters[i] == '\'') + 1,
        '\'' if here(2) == '\'' => at + 3,
        _ => at + 1,
    };
    end.min(characters.len())
}

fn text_end(characters: &[char], mut at: usize) -> usize {
    while at < characters.len() && characters[at] != '"' {
        at += if characters[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

pub fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn word_at_start(text: &str) -> &str {
    &text[..text.find(|character| !is_word(character)).unwrap_or(text.len())]
}

/// Lines in which `word` stands by itself.
pub fn lines_with_word(text: &str, word: &str) -> Vec<usize> {
    let alone = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            !(before.is_some_and(is_word) || word.ends_with(is_word) && after.is_some_and(is_word))
        })
    };
    numbered(text).filter(|(_, line)| alone(line)).map(|(number, _)| number).collect()
}

/// The modules named right behind `crate::` (in main.rs behind `tenured::`), also those in braces, each with its line.
pub fn modules_named(code: &str) -> Vec<(usize, &str)> {
    let mut named = Vec::new();
    for prefix in ["crate::", "tenured::"] {
        for (at, _) in code.match_indices(prefix) {
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + prefix.len()..];
            let Some(list) = rest.strip_prefix('{') else {
                named.push((line, word_at_start(rest)));
                continue;
            };
            let mut depth = 0;
            let mut start = 0;
            for (offset, character) in list.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        named.push((line, word_at_start(list[start..offset].trim_start())));
                        start = offset + 1;
                    }
                    _ => {}
                }
                if character == '}' && depth == 0 && start == offset + 1 {
                    break;
                }
            }
        }
    }
    named.retain(|(_, name)| !name.is_empty());
    named
}

pub struct Function<'a> {
    pub name: &'a str,
    /// Where `fn` stands, and how many lines it is from there to the closing brace.
    pub line: usize,
    pub lines: usize,
}

/// Functions that have a body.
pub fn functions(code: &str) -> Vec<Function<'_>> {
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let rest = &code[at + 3..];
        let name = word_at_start(rest);
        if name.is_empty() || code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let Some(body) = body_of(rest) else { continue };
        let mut depth = 0;
        let closing = rest[body..].char_indices().find(|(_, character)| {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let end = closing.map_or(rest.len(), |(offset, _)| body + offset);
        let (line, lines) = (code[..at].matches('\n').count() + 1, rest[..end].matches('\n').count() + 1);
        functions.push(Function { name, line, lines });
    }
    functions
}

/// Where a function's body opens; None for a declaration, which ends with a semicolon outside of brackets (`[u8; 4]`).
fn body_of(signature: &str) -> Option<usize> {
    let mut depth = 0;
    for (offset, character) in signature.char_indices() {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(offset),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Types and modules that a line declares, each behind its keyword.
pub fn declared(line: &str) -> Vec<(&str, &str)> {
    let words: Vec<&str> = line.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).collect();
    let kinds = ["struct", "enum", "trait", "type", "mod"];
    words.windows(2).filter(|pair| kinds.contains(&pair[0])).map(|pair| (pair[0], pair[1])).collect()
}
