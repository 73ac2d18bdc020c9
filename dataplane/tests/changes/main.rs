//! What a change of a backend does to flows: the table in `docs/CHANGES-OF-BACKENDS.md`, a test
//! for each cell of it.
//!
//! [`cells!`] has the same table; the test of a cell is `table::<row>::<column>`, and the words in
//! bold at the head of a cell are what it asserts. [`table::the_page_has_the_same_cells`] holds
//! page and tests together.

#[cfg(test)]
mod columns;
#[cfg(test)]
mod flush;
#[cfg(test)]
mod last;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod scene;
#[cfg(test)]
mod slow_start;
#[cfg(test)]
mod table;
