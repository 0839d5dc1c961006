CREATE TABLE schema_migration (version int PRIMARY KEY);
