//! The known word nearest to a misspelt one, for "did you mean".

/// Longest word compared, in bytes: known words are shorter than 20, and the work is quadratic.
const LENGTH_MAX: usize = 40;

/// The candidate with the fewest edits from `word`, if that is few enough to be a slip: one
/// edit, or one for each three letters.
pub(crate) fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    if word.len() > LENGTH_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let scored = candidates
        .iter()
        .map(|candidate| (edits(&word, candidate), *candidate));
    let (edits, candidate) = scored.min_by_key(|&(edits, _)| edits)?;
    (edits <= (candidate.len() / 3).max(1)).then_some(candidate)
}

/// Optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, n) in [
            ("", "", 0),
            ("", "ab", 2),
            ("nat", "nat", 0),
            ("natt", "nat", 1),
        ] {
            assert_eq!((edits(a, b), edits(b, a)), (n, n), "{a} {b}");
        }
        assert_eq!(edits("wieght", "weight"), 1);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let words = ["weight", "address", "disabled", "table-size"];
        assert_eq!(nearest("wieght", &words), Some("weight"));
        assert_eq!(nearest("Table_Size", &words), Some("table-size"));
        assert_eq!(nearest("metrics", &words), None);
        assert_eq!(nearest(&"weight".repeat(100), &words), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
