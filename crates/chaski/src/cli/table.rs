//! Plain tables for people: columns as wide as their widest cell, numbers to the right.

use std::fmt;

pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned)] }
    }

    pub(super) fn row(&mut self, row: [String; N]) {
        self.rows.push(row);
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().map(|r| r[column].chars().count()).max();
        let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
        let is_number = |cell: &str| cell == "-" || cell.parse::<f64>().is_ok();
        let numbers: [bool; N] =
            std::array::from_fn(|column| self.rows[1..].iter().all(|r| is_number(&r[column])));
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                // What comes from a record must not steer the terminal.
                let cell: String =
                    cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                let width = widths[column];
                match numbers[column] {
                    true => line.push_str(&format!("{cell:>width$}  ")),
                    false => line.push_str(&format!("{cell:<width$}  ")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_stand_right() {
        let mut table = Table::new(["NAME", "LAG"]);
        table.row(["generator".into(), "7".into()]);
        table.row(["a\x1bb".into(), "1234".into()]);
        assert_eq!(table.to_string(), "NAME        LAG\ngenerator     7\na b        1234\n");
    }
}
