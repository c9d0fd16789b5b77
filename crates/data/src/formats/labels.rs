//! From what a file says about labels to [`Label`]s and class names.

use std::collections::{BTreeMap, BTreeSet};

use nocebo_core::{Label, NotNan};

use crate::{DataError, OpenOptions, Order};

/// Checks that class numbers fit `names`, or names them when every class from 0 up occurs.
///
/// `parts` are the label arrays by name; all of them count, so that every split has the same classes.
pub(crate) fn numbered_names(
    file: &str,
    parts: &[(&str, &[i128])],
    names: Option<Vec<String>>,
) -> Result<Vec<String>, DataError> {
    let all = || {
        parts.iter().flat_map(|(part, labels)| labels.iter().enumerate().map(move |(row, label)| (*part, row, *label)))
    };
    let greatest = names.as_ref().map_or(i128::MAX, |names| names.len() as i128 - 1);
    if let Some((part, sample, label)) = all().find(|(_, _, label)| !(0..=greatest).contains(label)) {
        let expected = match names {
            Some(names) => format!("a class from 0 to {}", names.len() as i128 - 1),
            None => "a class number from 0 up".to_owned(),
        };
        let file = format!("{file}, {part}");
        return Err(DataError::Label { file, sample, expected, got: label.to_string() });
    }
    if let Some(names) = names {
        return Ok(names);
    }
    let found: BTreeSet<i128> = all().map(|(_, _, label)| label).collect();
    let greatest = found.last().copied().unwrap_or(-1);
    if found.len() as i128 != greatest + 1 {
        return Err(DataError::Classes {
            file: file.to_owned(),
            expected: format!("every class from 0 to {greatest}"),
            got: format!("{} different class numbers", found.len()),
            advice: "correct the labels, or name all classes",
        });
    }
    Ok(found.iter().map(ToString::to_string).collect())
}

/// Labels from texts, such as folder names or a CSV column: one class a text, and the class names. Numbers where the options say
/// so.
///
/// Without `names`, classes are in the order of their numbers when all texts are whole numbers, else in alphabetical
/// (byte) order.
pub(crate) fn named(
    file: &str,
    texts: &[String],
    options: &OpenOptions,
) -> Result<(Vec<Label>, Vec<String>), DataError> {
    if let Some(Order::Numbers { .. }) = options.order {
        let number = |(sample, text): (usize, &String)| {
            let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
            number.and_then(|number| NotNan::new(number).ok()).map(Label::Number).ok_or_else(|| DataError::Label {
                file: file.to_owned(),
                sample,
                expected: "a number".to_owned(),
                got: format!("`{text}`"),
            })
        };
        return Ok((texts.iter().enumerate().map(number).collect::<Result<_, _>>()?, Vec::new()));
    }
    let names = options.class_names.clone().unwrap_or_else(|| {
        let mut found: Vec<String> = texts.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let numbers: Option<BTreeMap<String, u64>> =
            found.iter().map(|text| text.parse().ok().map(|number| (text.clone(), number))).collect();
        if let Some(numbers) = numbers {
            found.sort_by_key(|text| numbers[text]);
        }
        found
    });
    let class_of: BTreeMap<&str, usize> =
        names.iter().enumerate().map(|(class, name)| (name.as_str(), class)).collect();
    let labels = texts
        .iter()
        .enumerate()
        .map(|(sample, text)| match class_of.get(text.as_str()) {
            Some(&class) => Ok(Label::Class(class)),
            None => Err(DataError::Label {
                file: file.to_owned(),
                sample,
                expected: format!("one of the {} given classes", names.len()),
                got: format!("`{text}`"),
            }),
        })
        .collect::<Result<_, _>>()?;
    Ok((labels, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn numbers_are_named_when_none_is_missing() {
        let parts: [(&str, &[i128]); 2] = [("train", &[0, 2]), ("test", &[1])];
        assert_eq!(numbered_names("f", &parts, None).unwrap(), ["0", "1", "2"]);
        let names = texts(&["a", "b", "c", "d"]);
        assert_eq!(numbered_names("f", &parts, Some(names.clone())).unwrap(), names);
        let gap = numbered_names("f", &[("train", &[0, 1, 200])], None).unwrap_err();
        assert!(matches!(gap, DataError::Classes { .. }), "{gap}");
        let outside = numbered_names("f", &[("a", &[0]), ("b", &[1, 2])], Some(texts(&["x", "y"]))).unwrap_err();
        assert_eq!(outside.to_string(), "`f, b`: label of sample 1: expected a class from 0 to 1, got 2");
        assert!(matches!(numbered_names("f", &[("a", &[-1])], None), Err(DataError::Label { sample: 0, .. })));
    }

    #[test]
    fn texts_are_ordered_by_number_or_alphabet() {
        let none = OpenOptions::default();
        let given = |names: &[&str]| OpenOptions { class_names: Some(texts(names)), ..OpenOptions::default() };
        let (labels, names) = named("f", &texts(&["10", "9", "10"]), &none).unwrap();
        assert_eq!(names, ["9", "10"]);
        assert_eq!(labels, [Label::Class(1), Label::Class(0), Label::Class(1)]);
        assert_eq!(named("f", &texts(&["b", "10", "a"]), &none).unwrap().1, ["10", "a", "b"]);
        let (labels, _) = named("f", &texts(&["b"]), &given(&["b", "a"])).unwrap();
        assert_eq!(labels, [Label::Class(0)]);
        assert!(named("f", &texts(&["c"]), &given(&["b", "a"])).is_err());
    }

    #[test]
    fn texts_are_numbers_where_the_options_say_so() {
        let options = OpenOptions { order: Some(Order::Numbers { tolerance: 6.0 }), ..OpenOptions::default() };
        let (labels, names) = named("f", &texts(&["120.5", "-3"]), &options).unwrap();
        assert_eq!(labels, [120.5, -3.0].map(|value| Label::Number(NotNan::new(value).unwrap())));
        assert!(names.is_empty());
        for text in ["tall", "nan", "inf"] {
            assert!(
                named("f", &texts(&["1", text]), &options)
                    .unwrap_err()
                    .to_string()
                    .contains("sample 1: expected a number")
            );
        }
    }
}
