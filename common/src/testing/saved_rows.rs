use sqlx::Executor as _;

use super::TestEnvironment;

/// The rows of all tables at one moment, as a backup has them.
pub struct SavedRows {
    tables: Vec<SavedTable>,
}

struct SavedTable {
    name: String,
    /// Those that can be inserted.
    columns: String,
    counts_up: bool,
}

impl SavedRows {
    /// Copies the rows of every table.
    pub async fn of(environment: &TestEnvironment) -> Self {
        let names = "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = DATABASE() \
                     AND table_name NOT LIKE '\\_sqlx%'";
        let mut tables = Vec::new();
        for name in environment.texts(names).await {
            let columns = |condition: &str| {
                format!(
                    "SELECT CAST(column_name AS CHAR) FROM information_schema.columns WHERE table_schema = DATABASE() \
                     AND table_name = '{name}' AND {condition} ORDER BY ordinal_position"
                )
            };
            let insertable = environment.texts(&columns("COALESCE(generation_expression, '') = ''")).await.join(", ");
            let counts_up = !environment.texts(&columns("extra LIKE '%auto_increment%'")).await.is_empty();
            environment.execute(&format!("CREATE TABLE saved_{name} AS SELECT {insertable} FROM {name}")).await;
            tables.push(SavedTable { name, columns: insertable, counts_up });
        }
        Self { tables }
    }

    /// Puts the rows back in place of those that are there now, as a restore does: all at once.
    pub async fn restore(&self, environment: &TestEnvironment) {
        let statements = self.tables.iter().map(|SavedTable { name, columns, .. }| {
            format!("DELETE FROM {name}; INSERT INTO {name} ({columns}) SELECT {columns} FROM saved_{name};")
        });
        let sql = format!("START TRANSACTION; {} COMMIT", statements.collect::<String>());
        let mut connection = environment.database.pool().acquire().await.expect("a connection");
        // Workers may hold row locks. A deadlock is resolved against one of the two.
        let mut attempts = 0;
        while let Err(error) = connection.execute(sqlx::AssertSqlSafe(sql.clone())).await {
            attempts += 1;
            assert!(attempts < 5, "{error}");
            connection.execute("ROLLBACK").await.expect("rolled back");
        }
        for table in self.tables.iter().filter(|table| table.counts_up) {
            environment.execute(&format!("ALTER TABLE {} AUTO_INCREMENT = 1", table.name)).await;
        }
    }
}
