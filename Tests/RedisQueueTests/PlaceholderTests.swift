import Testing

@Test func placeholderRedisQueue() {}
