"""What pika's channels receive, within quotas."""
