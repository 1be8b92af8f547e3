package site;

import java.util.Map;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.core.oidc.user.OidcUser;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** What the starters make of themselves: everything behind oauth2Login. */
@SpringBootApplication
@RestController
public class Site {
  public static void main(String[] arguments) {
    SpringApplication.run(Site.class, arguments);
  }

  @GetMapping("/who")
  public Map<String, Object> who(@AuthenticationPrincipal OidcUser user) {
    return user.getClaims();
  }
}
