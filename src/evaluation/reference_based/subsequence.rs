//! The longest common subsequence of two texts.

/// Which positions of `reference` are in the subsequence that rouge-score finds: from the end, a match is
/// taken at once, and of two equal ways the one that drops the reference's token.
pub(super) fn positions<T: PartialEq>(reference: &[T], text: &[T]) -> Vec<usize> {
    let columns = text.len() + 1;
    let mut table = vec![0u32; (reference.len() + 1) * columns];
    for (i, x) in reference.iter().enumerate() {
        for (j, y) in text.iter().enumerate() {
            table[(i + 1) * columns + j + 1] = match x == y {
                true => table[i * columns + j] + 1,
                false => table[i * columns + j + 1].max(table[(i + 1) * columns + j]),
            };
        }
    }
    let (mut i, mut j) = (reference.len(), text.len());
    let mut found = Vec::new();
    while i > 0 && j > 0 {
        if reference[i - 1] == text[j - 1] {
            found.push(i - 1);
            (i, j) = (i - 1, j - 1);
        } else if table[i * columns + j - 1] > table[(i - 1) * columns + j] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    found
}
