"""What every Redis of ours is set to, in a container or native."""

# What a killed Redis had answered is there after its restart; a machine's crash is no concern here.
REDIS_KEEPS_DATA = ("--appendonly", "yes", "--appendfsync", "no", "--save", "")
