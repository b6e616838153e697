variable "project" {
  description = "The ID of the Google Cloud project."
  type        = string
}

variable "notification_channels" {
  description = "The channels of Cloud Monitoring that alerts are sent to, as in projects/PROJECT/notificationChannels/ID."
  type        = list(string)
}
