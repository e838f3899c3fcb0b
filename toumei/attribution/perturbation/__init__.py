"""Attribution by removing parts of the inputs."""
