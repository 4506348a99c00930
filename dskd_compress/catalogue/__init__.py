"""What timm offers: survey, inspect, suggest, licences."""
