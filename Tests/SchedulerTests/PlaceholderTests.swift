import Testing

@Test func placeholderScheduler() {}
