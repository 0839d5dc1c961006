import Testing

@Test func placeholderWorker() {}
