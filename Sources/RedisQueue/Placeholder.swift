enum RedisQueuePlaceholder {}
