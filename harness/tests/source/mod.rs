//! Rust source as the tidy rules see it: comments and literals blanked out, functions found by their braces.
//! A lexer of the few things that matter, not a parser.

/// A function and the lines that it spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// Its first line, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to its closing brace.
    pub(crate) lines: usize,
}

/// The text with every character of comments, strings and character literals replaced by a space; line breaks stay.
pub(crate) fn code_of(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let end = skipped_until(&characters, at);
        if end == at {
            code.push(characters[at]);
            at += 1;
            continue;
        }
        code.extend(characters[at..end].iter().map(|character| if *character == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Functions with a body, in order.
pub(crate) fn functions_of(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_word = at == 0 || !is_identifier(bytes[at - 1]);
        let rest = code[at + 3..].trim_start();
        let name: String =
            rest.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect();
        if !is_word || name.is_empty() {
            continue;
        }
        let Some(end) = body_end(bytes, at) else { continue };
        let line = line_of(code, at);
        functions.push(Function { name, line, lines: line_of(code, end) - line + 1 });
    }
    functions
}

/// Whether the word stands alone in the code.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    let bytes = code.as_bytes();
    code.match_indices(word).any(|(at, _)| {
        let end = at + word.len();
        let starts = at == 0 || !is_identifier(bytes[at - 1]);
        let ends = end == bytes.len() || !is_identifier(bytes[end]);
        starts && ends
    })
}

fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The end of the comment or literal that starts here; `at` itself where none does.
fn skipped_until(characters: &[char], at: usize) -> usize {
    let rest = &characters[at..];
    let follows = at > 0 && (characters[at - 1].is_alphanumeric() || characters[at - 1] == '_');
    match rest {
        ['/', '/', ..] => at + rest.iter().position(|character| *character == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => at + block_comment_length(rest),
        ['"', ..] => at + quoted_length(rest, '"'),
        ['b' | 'c', '"', ..] if !follows => at + 1 + quoted_length(&rest[1..], '"'),
        ['r', '"' | '#', ..] if !follows => at + raw_length(rest).unwrap_or(0),
        ['b' | 'c', 'r', '"' | '#', ..] if !follows => at + raw_length(&rest[1..]).map_or(0, |length| length + 1),
        ['\'', '\\', ..] => at + quoted_length(rest, '\''),
        // A quote around one character; otherwise it begins a lifetime.
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] if depth == 1 => return at + 2,
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn quoted_length(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            character if character == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw string from its `r` on; none where it is a raw identifier.
fn raw_length(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|character| **character == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return None;
    }
    let body = 2 + hashes;
    let is_end =
        |at: &usize| rest[*at] == '"' && rest[*at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    let end = (body..rest.len()).find(is_end);
    Some(end.map_or(rest.len(), |end| end + 1 + hashes))
}

/// The closing brace of the body of the function that starts here; none for a declaration.
fn body_end(code: &[u8], start: usize) -> Option<usize> {
    let (mut brackets, mut braces) = (0i32, 0i32);
    for (at, byte) in code.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b';' if brackets == 0 && braces == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces == 0 && brackets == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}
