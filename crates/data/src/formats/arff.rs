//! Tables in the attribute-relation file format of Weka (`.arff`), turned into the text of a [table](super::table) with a line of
//! names. Sparse lines and relations inside of relations are refused; such tables are written back as CSV.
//!
//! Source: Weka manual 3.9, "ARFF".

use std::collections::BTreeMap;

use super::table::quoted;
use crate::DataError;

/// The table as text between commas, and the values of each column that lists them, in order.
pub(super) fn to_csv(file: &str, text: &str) -> Result<(String, BTreeMap<String, Vec<String>>), DataError> {
    let wrong = |line: usize, expected: &str, got: &str| {
        DataError::format(file, format!("line {}", line + 1), expected.to_owned(), got.to_owned())
    };
    let (mut names, mut nominal, mut csv, mut in_data) = (Vec::new(), BTreeMap::new(), String::new(), false);
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('%') {
            continue;
        }
        let unclosed = || wrong(at, "a closing quote", "none");
        if in_data {
            if line.starts_with('{') {
                let advice = "save it with all values in every line, or as CSV";
                return Err(DataError::refused(file, "a table of sparse lines", advice));
            }
            csv.push_str(&cells(line).ok_or_else(unclosed)?.join(","));
            csv.push('\n');
            continue;
        }
        let (word, rest) = line.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((line, ""));
        match word.to_ascii_lowercase().as_str() {
            "@relation" => {}
            "@attribute" => {
                let (name, kind) = first_word(rest.trim()).ok_or_else(unclosed)?;
                let kind = kind.trim();
                if let Some(values) = kind.strip_prefix('{').and_then(|values| values.strip_suffix('}')) {
                    let values = cells(values).ok_or_else(unclosed)?;
                    nominal.insert(name.clone(), values.iter().map(|value| plain(value)).collect());
                } else if kind.is_empty() || kind.to_ascii_lowercase().starts_with("relational") {
                    return Err(wrong(at, "a type: numeric, string, date or {values}", "another"));
                }
                names.push(name);
            }
            "@data" => {
                csv = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(",");
                csv.push('\n');
                in_data = true;
            }
            _ => return Err(wrong(at, "@relation, @attribute, @data or a comment", "another line")),
        }
    }
    if in_data { Ok((csv, nominal)) } else { Err(DataError::format(file, "table", "a line @data", "none")) }
}

/// What a cell of the text between commas says.
fn plain(cell: &str) -> String {
    match cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"')) {
        Some(inside) => inside.replace("\"\"", "\""),
        None => cell.to_owned(),
    }
}

/// The first word, which may stand in quotes, and what follows it.
fn first_word(text: &str) -> Option<(String, &str)> {
    if text.starts_with(['\'', '"']) {
        let (word, length) = between_quotes(text)?;
        return Some((word, &text[length..]));
    }
    let end = text.find(|c: char| c.is_ascii_whitespace() || c == '{').unwrap_or(text.len());
    Some((text[..end].to_owned(), &text[end..]))
}

/// The cells of a line, as they stand between commas in a CSV file; none where a quote is not closed.
fn cells(line: &str) -> Option<Vec<String>> {
    let (mut cells, mut rest) = (Vec::new(), line);
    loop {
        rest = rest.trim_start();
        let cell = if rest.starts_with(['\'', '"']) {
            let (cell, length) = between_quotes(rest)?;
            rest = rest[length..].trim_start();
            quoted(&cell)
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let cell = rest[..end].trim();
            rest = &rest[end..];
            if cell.contains('"') { quoted(cell) } else { cell.to_owned() }
        };
        cells.push(cell);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Some(cells),
            None => return None,
        }
    }
}

/// The text between the quote that it starts with and the next such, in which a backslash makes any character plain; and the length of
/// both with the quotes.
fn between_quotes(text: &str) -> Option<(String, usize)> {
    let mut characters = text.char_indices();
    let (_, quote) = characters.next()?;
    let mut inside = String::new();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => inside.push(characters.next()?.1),
            _ if character == quote => return Some((inside, at + character.len_utf8())),
            _ => inside.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::shared;
    use crate::{OpenOptions, Split};

    const WEKA: &str = include_str!("../../../../fuzz/seeds/arff/weka.arff");

    #[test]
    fn names_types_quotes_and_comments_are_read() {
        let (csv, nominal) = to_csv("t", WEKA).unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[0], r#""heart rate","grade","seen","class""#);
        assert_eq!(lines[2], r#"72,"very high",?,well"#);
        assert_eq!(nominal["class"], ["ill", "well", "unknown"]);
        assert_eq!(nominal["grade"], ["low", "very high"]);
        assert_eq!(cells(r#"'it\'s', a"b"#).unwrap(), [r#""it's""#, r#""a""b""#]);
    }

    #[test]
    fn damaged_headers_and_sparse_lines_are_refused() {
        for (from, to, reason) in [
            ("@DATA", "@DAT", "@relation, @attribute"),
            ("@DATA", "% no data", "@relation, @attribute"),
            ("'very high' ,", "'very high ,", "closing quote"),
            ("61.5,", "{0 61.5},", "sparse"),
            ("seen date", "seen", "type"),
            ("seen date", "seen relational", "type"),
        ] {
            let error = to_csv("t.arff", &WEKA.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("t.arff"), "{from}: {error}");
        }
        assert!(to_csv("t", "@relation a\n").unwrap_err().to_string().contains("@data"));
    }

    #[test]
    fn classes_keep_their_order_and_the_table_comes_back_as_csv() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.arff");
        std::fs::write(&path, WEKA).unwrap();
        let fractions = crate::Fractions { train: 1.0, validation: 0.0, test: 0.0 };
        let data = crate::open_with(&path, Split::Train, &OpenOptions { fractions, ..OpenOptions::default() }).unwrap();
        assert_eq!(data.class_names(), ["ill", "well", "unknown"]);
        let columns: Vec<&str> = data.domain().columns().iter().map(|column| column.name.as_str()).collect();
        assert_eq!(columns, ["heart rate", "grade=low", "grade=very high", "seen"]);
        assert_eq!(data.samples().indices(), [0, 3], "lines with a missing cell are left out");
        let out = folder.path().join("out");
        crate::write(&out, &data).unwrap();
        assert_eq!(crate::read_back(&out, &data).unwrap(), *data.samples());
        assert!(std::fs::read_to_string(out.join("table.csv")).unwrap().contains("70.25,low,2020-02-03,ill"));
    }

    #[test]
    fn the_eye_states_are_a_table() {
        let Some(path) = shared("eeg-eye-state/EEG_Eye_State.arff") else { return };
        let fractions = crate::Fractions { train: 1.0, validation: 0.0, test: 0.0 };
        let data = crate::open_with(&path, Split::Train, &OpenOptions { fractions, ..OpenOptions::default() }).unwrap();
        assert_eq!((data.samples().shape(), data.class_names()), (&[14][..], &["0", "1"].map(str::to_owned)[..]));
        assert_eq!(data.class_counts(), [8257, 6723]);
    }
}
