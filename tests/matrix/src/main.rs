//! Prints the matrix of requirements, then what is wrong with it.

fn main() -> anyhow::Result<()> {
    let (matrix, text) = matrix::Matrix::load(&matrix::root().join(matrix::FILE))?;
    print!("{}", matrix::print(&matrix));
    let problems = matrix::problems(&matrix, &text, &matrix::Sources::load(&matrix::root())?);
    problems.iter().for_each(|problem| println!("{problem}"));
    anyhow::ensure!(problems.is_empty(), "{} problems", problems.len());
    Ok(())
}
