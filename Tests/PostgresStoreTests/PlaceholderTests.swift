import Testing

@Test func placeholderPostgresStore() {}
