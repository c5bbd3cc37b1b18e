//! Each script on a real server: a test for each code that it answers.

mod sales_scripts;
mod scripts;
